/* lanes_cpu.c: what the processor and the kernel allow the lanes. */
#include "lanes.h"

#include <stdatomic.h>

#ifdef LANES_HAVE_IFMA
#include <cpuid.h>

enum {
    CPUID_1_ECX_OSXSAVE = 1 << 27,
    CPUID_7_EBX_AVX2 = 1 << 5,
    CPUID_7_EBX_AVX512F = 1 << 16,
    CPUID_7_EBX_AVX512DQ = 1 << 17,
    CPUID_7_EBX_AVX512IFMA = 1 << 21,
    CPUID_7_EBX_AVX512BW = 1 << 30,
};
#define CPUID_7_EBX_AVX512VL (1u << 31)
/* Registers that the kernel saves: xmm, ymm, the masks, the upper halves of zmm 0 to 15, zmm 16 to 31. */
enum { XCR0_AVX512 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 };

static bool processor_has_ifma(void) {
    const unsigned wanted = CPUID_7_EBX_AVX2 | CPUID_7_EBX_AVX512F | CPUID_7_EBX_AVX512DQ | CPUID_7_EBX_AVX512IFMA | CPUID_7_EBX_AVX512BW |
                            CPUID_7_EBX_AVX512VL;
    unsigned eax, ebx, ecx, edx, saved, saved_high;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & CPUID_1_ECX_OSXSAVE) == 0)
        return false;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
    if ((saved & XCR0_AVX512) != XCR0_AVX512)
        return false;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & wanted) == wanted;
}
#else
static bool processor_has_ifma(void) {
    return false;
}
#endif

bool lanes_can(enum lanes_way way) {
    /* CPUID leaves a virtual machine: tens of microseconds. Asked once. */
    static _Atomic int known; /* 0: not asked; 1: no; 2: yes */
    if (way != LANES_IFMA)
        return way == LANES_PLAIN;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        answer = processor_has_ifma() ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}
