/* secret.c: pages for private keys. */
#include "secret.h"

#include <string.h>
#include <sys/mman.h>

void *secret_alloc(size_t bytes) {
    void *memory = bytes == 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    /* Where one of them is refused (RLIMIT_MEMLOCK) the key is still better signed with than not. */
    mlock(memory, bytes);
    madvise(memory, bytes, MADV_DONTDUMP);
    madvise(memory, bytes, MADV_WIPEONFORK);
    return memory;
}

void secret_free(void *memory, size_t bytes) {
    if (memory == NULL)
        return;
    explicit_bzero(memory, bytes);
    munmap(memory, bytes);
}
