//! `run --stacks --types`, and what became of types from one run to another.

mod common;

use common::recorded::command;
use common::*;
use std::process::Command;

fn view(words: &[&std::ffi::OsStr]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    clean(&mut command);
    command.args(words).output().unwrap()
}

/// A program that keeps so many instances of a class and so many bytes.
fn source(carts: usize, bytes: usize) -> String {
    format!(
        "class Cart(object):\n    pass\n\
         carts = [Cart() for _ in range({carts})]\n\
         blob = bytearray({bytes})\n\
         print(len(carts))\n"
    )
}

fn row<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    let named = |row: &&Value| row["type"].as_str().is_some_and(|t| t == name);
    rows.iter().find(named).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn what_grew_by_type() {
    one_of_each(
        |_| true,
        |python| {
            let dir = Dir::new();
            let mut files = Vec::new();
            for (name, carts, bytes) in [("a", 1000, 1 << 20), ("b", 4000, 9 << 20)] {
                let (mut command, profile) =
                    command(python, &dir, &source(carts, bytes), &["--types", "--force"]);
                let ran = run(&mut command, "").ok();
                assert_eq!(ran.stdout, format!("{carts}\n"));
                let to = dir.join(name);
                std::fs::rename(profile, &to).unwrap();
                files.push(to);
            }
            let [a, b] = [files[0].as_os_str(), files[1].as_os_str()];
            let words =
                ["diff".as_ref(), a, b, "--by".as_ref(), "type".as_ref(), "--json".as_ref()];
            let said = view(&words);
            assert!(said.status.success(), "{said:?}");
            let diff: Value = serde_json::from_slice(&said.stdout).unwrap();
            assert_eq!((&diff["by"], &diff["weight"]), (&"type".into(), &"in-use".into()));
            let rows = diff["rows"].as_array().unwrap();
            let cart = row(rows, "__main__.Cart");
            assert_eq!(number(cart, "change_blocks"), 3000, "{cart}");
            assert_eq!(
                (number(&cart["before"], "blocks"), &cart["status"]),
                (1000, &"grew".into())
            );
            let blob = row(rows, "bytearray");
            let grew = number(blob, "change_bytes");
            assert!((8 << 20..(8 << 20) + 8192).contains(&grew), "{blob}");
            // As text, and of one profile alone.
            let said = view(&words[..5]);
            let text = String::from_utf8(said.stdout).unwrap();
            assert!(text.contains("__main__.Cart") && text.contains("objects"), "{text}");
            let said = view(&["table".as_ref(), b, "--by".as_ref(), "type".as_ref()]);
            let text = String::from_utf8(said.stdout).unwrap();
            assert!(text.contains("bytearray") && text.contains("Objects"), "{text}");
        },
    );
}

#[test]
fn without_types_it_is_said_how_to_get_them() {
    let python = pythons().last().unwrap();
    let dir = Dir::new();
    let (mut command, profile) = command(python, &dir, &source(10, 10), &[]);
    run(&mut command, "").ok();
    let said = view(&["table".as_ref(), profile.as_os_str(), "--by".as_ref(), "type".as_ref()]);
    assert_eq!(said.status.code(), Some(125));
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("run --stacks --types"), "{text}");
}
