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

#if defined(__x86_64__)
/* The compiler knows no vector register from the 16th on in this file, so none of them is named as changed. */
static void registers_wipe(void) {
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" ::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                               "xmm13", "xmm14", "xmm15");
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile(".irp number, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"
                         "vpxorq %%zmm\\number, %%zmm\\number, %%zmm\\number\n\t"
                         ".endr" ::);
}
#else
static void registers_wipe(void) {}
#endif

/* In a frame of its own, which lies where theirs lay. */
__attribute__((noinline)) void secret_wipe_traces(size_t stack_bytes) {
    registers_wipe();
    explicit_bzero(__builtin_alloca(stack_bytes), stack_bytes);
}

void secret_free(void *memory, size_t bytes) {
    if (memory == NULL)
        return;
    explicit_bzero(memory, bytes);
    munmap(memory, bytes);
}
