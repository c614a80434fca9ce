//! Reading live processes: the bytes are right, and the process is none the worse.
//!
//! The processes are this test program itself, started anew with `STRANDLINE_IMAGE_CHILD` set.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use strandline_image::{capture, Error, Image, Options, Source, PAGE};

struct Started {
    child: Child,
    said: Vec<u64>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts this program as a child that does `what`, and waits for the numbers that it says.
fn start(what: &str) -> Started {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env("STRANDLINE_IMAGE_CHILD", what)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let said = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("ready ").map(str::to_owned))
        .expect("the child says that it is ready");
    let said = said.split(' ').filter_map(|n| n.parse().ok()).collect();
    Started { child, said }
}

impl Started {
    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn image(&self) -> Image {
        capture(self.pid(), &Options::default()).unwrap()
    }

    fn rss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// States of its threads (`S`, `R`, `t` and so on).
    fn states(&self) -> Vec<char> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let state = |tid: String| {
            let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid()));
            stat.ok()?.rsplit_once(") ")?.1.chars().next()
        };
        tasks.flatten().filter_map(|t| state(t.file_name().into_string().ok()?)).collect()
    }
}

/// Not a test: what the children do. Says "ready" with some numbers and goes on for ever.
#[test]
fn child() {
    let Ok(what) = std::env::var("STRANDLINE_IMAGE_CHILD") else { return };
    match what.as_str() {
        "bytes" => {
            let block: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
            println!("ready {} {}", block.as_ptr() as u64, block.len());
            sleep(&block);
        }
        "sparse" => {
            // SAFETY: a fresh mapping; two of its pages are written to.
            let start = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                let rw = libc::PROT_READ | libc::PROT_WRITE;
                let p = libc::mmap(std::ptr::null_mut(), 64 << 30, rw, flags, -1, 0);
                assert_ne!(p, libc::MAP_FAILED);
                *(p as *mut u8).add(5 << 30) = 1;
                *(p as *mut u8).add(40 << 30) = 2;
                p
            };
            println!("ready {}", start as u64);
            sleep(&());
        }
        "threads" => {
            use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
            static TURNS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
            for turns in &TURNS {
                std::thread::spawn(move || loop {
                    turns.fetch_add(1, Relaxed);
                    std::hint::black_box(vec![0u8; 1000]);
                });
            }
            println!("ready {}", TURNS.as_ptr() as u64);
            sleep(&());
        }
        "signals" => {
            static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            extern "C" fn count(_: libc::c_int) {
                COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            // SAFETY: the handler only adds to a static.
            unsafe { libc::signal(libc::SIGUSR1, count as *const () as usize) };
            println!("ready {}", COUNT.as_ptr() as u64);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        other => panic!("no such child: {other}"),
    }
}

fn sleep<T>(kept: &T) -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(600));
        std::hint::black_box(kept);
    }
}

#[test]
fn the_bytes_are_those_of_the_process() {
    let s = start("bytes");
    let before = s.rss();
    let image = s.image();
    let mut bytes = vec![0; s.said[1] as usize];
    assert!(image.read(s.said[0], &mut bytes));
    assert!(bytes.iter().enumerate().all(|(i, &b)| b == (i as u32 * 7 + i as u32 / 256) as u8));
    assert!(image.slice(s.said[0], bytes.len()).is_some(), "one piece");
    // Code comes from the file.
    let text = image.mappings().iter().find(|m| m.execute && m.path.starts_with('/')).unwrap();
    let head = image.mappings().iter().find(|m| m.inode == text.inode && m.offset == 0).unwrap();
    assert_eq!(image.half(head.start), Some(u32::from_le_bytes(*b"\x7fELF")));
    assert_eq!(s.rss(), before, "the process is as large as before");
    let Source::Process { paused: Some(stood), .. } = image.source() else { panic!("not paused") };
    assert!(*stood < Duration::from_secs(5));
    let facts = image.facts();
    assert!(facts.command_line.iter().any(|word| word == "child"), "{facts:?}");
}

#[test]
fn residency_is_what_smaps_says() {
    let s = start("bytes");
    let image = s.image();
    let mut sum = 0;
    for m in image.mappings() {
        let usage = m.usage.unwrap();
        let pages = m.resident.count(0, (m.len() / PAGE) as usize) as u64 * PAGE;
        assert_eq!(pages, usage.rss, "{m:?}");
        sum += pages;
    }
    assert_eq!(sum, s.rss());
    let thread = &image.threads()[0];
    let stack = image.mapping_at(thread.stack_pointer.unwrap()).unwrap();
    assert!(stack.path == "[stack]" || stack.is_anonymous());
}

#[test]
fn a_sparse_mapping_costs_nothing() {
    let s = start("sparse");
    let start = Instant::now();
    let image = s.image();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(image.byte(s.said[0] + (5 << 30)), Some(1));
    assert_eq!(image.byte(s.said[0] + (40 << 30)), Some(2));
    assert_eq!(image.resident_bytes(s.said[0], s.said[0] + (64 << 30)), 2 * PAGE);
    let copied: usize = image.pieces().map(|(_, bytes)| bytes.len()).sum();
    assert!(copied < 64 << 20, "{copied} bytes");
}

#[test]
fn all_threads_run_on() {
    let s = start("threads");
    let turns = |image: &Image| -> Vec<u64> {
        (0..4).map(|i| image.word(s.said[0] + 8 * i).unwrap()).collect()
    };
    let mut before = turns(&s.image());
    for _ in 0..20 {
        let image = s.image();
        assert_eq!(image.threads().iter().filter(|t| t.stack_pointer.is_some()).count(), {
            image.threads().len()
        });
        assert!(!s.states().iter().any(|s| "tT".contains(*s)), "{:?}", s.states());
        // Four threads on a busy machine wait for their turn: each gets it in the end.
        let mut now = turns(&image);
        let end = Instant::now() + Duration::from_secs(60);
        while !now.iter().zip(&before).all(|(now, before)| now > before) {
            assert!(Instant::now() < end, "a thread stands: {before:?} {now:?}");
            std::thread::sleep(Duration::from_millis(20));
            now = turns(&s.image());
        }
        before = now;
    }
}

#[test]
fn signals_arrive_all_the_same() {
    let s = start("signals");
    let count = |s: &Started| s.image().word(s.said[0]).unwrap();
    let mut sent = 0;
    for _ in 0..50 {
        // One is pending while the process is stopped.
        // SAFETY: kill(2) of our own child.
        assert_eq!(unsafe { libc::kill(s.pid(), libc::SIGUSR1) }, 0);
        sent += 1;
        let _ = s.image();
        let end = Instant::now() + Duration::from_secs(10);
        while count(&s) < sent {
            assert!(Instant::now() < end, "{} of {sent} signals arrived", count(&s));
        }
        assert_eq!(count(&s), sent);
    }
}

#[test]
fn a_reader_that_dies_lets_go() {
    let s = start("threads");
    // A reader that is killed while it reads, again and again at other moments.
    for millis in [0, 1, 2, 5, 10, 20] {
        let mut reader = Command::new(std::env::current_exe().unwrap())
            .args(["reader", "--exact"])
            .env("STRANDLINE_IMAGE_READ", s.pid().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 + millis));
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(!s.states().iter().any(|s| "tT".contains(*s)), "{:?}", s.states());
}

/// Not a test: reads a process again and again.
#[test]
fn reader() {
    let Ok(pid) = std::env::var("STRANDLINE_IMAGE_READ") else { return };
    loop {
        let _ = capture(pid.parse().unwrap(), &Options::default());
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let fails = |pid| capture(pid, &Options::default()).err();
    assert!(matches!(fails(0), Some(Error::Missing(0))));
    assert!(matches!(fails(-5), Some(Error::Missing(-5))));
    assert!(matches!(fails(999_999_999), Some(Error::Missing(_))));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["no-such-test", "--exact"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It ends and waits for us.
    let stat = format!("/proc/{}/stat", child.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let zombie = fails(child.id() as i32);
    assert!(matches!(zombie, Some(Error::NoMemory(_) | Error::Denied { .. })), "{zombie:?}");
    child.wait().unwrap();
    // Oneself, without a stop.
    let own = capture(std::process::id() as i32, &Options { pause: false, ..Default::default() });
    let own = own.unwrap();
    assert_eq!(own.source(), &Source::Process { pid: std::process::id() as i32, paused: None });
}
