/* CPython 2.7.6 and older took its arenas from malloc. This lets a newer 2.7 do it again: loaded by LD_PRELOAD, it
 * answers the interpreter's requests for anonymous mappings of an arena's size from malloc, and gives them back to it.
 * glibc's own malloc calls its mmap inside and is not affected. Only for docs/why-memory-stays.md. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA (256 * 1024)

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset)
{
    if (length == ARENA && (flags & MAP_ANONYMOUS) && address == NULL) {
        void *arena = malloc(length);
        return arena ? arena : MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, file, offset);
}

/* The name that a build with large files calls. */
void *mmap64(void *address, size_t length, int protection, int flags, int file, off_t offset)
{
    return mmap(address, length, protection, flags, file, offset);
}

int munmap(void *address, size_t length)
{
    if (length == ARENA) {
        free(address);
        return 0;
    }
    return (int)syscall(SYS_munmap, address, length);
}
