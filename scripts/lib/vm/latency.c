/*
 * A plugin of QEMU's emulation that makes ranges of the guest's memory slow.
 *
 * A model, not a simulation: each virtual processor has a direct-mapped cache of addresses, and an access that
 * misses it waits, busily, for the time of the range that it falls into. There is no bandwidth, no prefetching,
 * no overlap of accesses. Ratios within one run mean something, absolute numbers do not.
 *
 * Arguments: range=FIRST:LAST:NS, several times; cache=KIB (default 1024).
 * The few functions of QEMU's interface are declared here, so that nothing but a compiler is needed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define LINE_SHIFT 6
#define MOST_PROCESSORS 64
#define MOST_RANGES 8

EXPORT int qemu_plugin_version = 4;

struct block;
struct instruction;
struct physical;
typedef void (*on_block)(uint64_t id, struct block *block);
typedef void (*on_access)(unsigned processor, uint32_t info, uint64_t address, void *data);
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, on_block callback);
extern size_t qemu_plugin_tb_n_insns(const struct block *block);
extern struct instruction *qemu_plugin_tb_get_insn(const struct block *block, size_t index);
extern void qemu_plugin_register_vcpu_mem_cb(struct instruction *instruction, on_access callback, int registers,
                                             int accesses, void *data);
extern struct physical *qemu_plugin_get_hwaddr(uint32_t info, uint64_t address);
extern bool qemu_plugin_hwaddr_is_io(const struct physical *address);
extern uint64_t qemu_plugin_hwaddr_phys_addr(const struct physical *address);

static struct {
    uint64_t first, last, ticks;
} ranges[MOST_RANGES];
static int range_count;
static uint64_t line_count = 1024 * 1024 >> LINE_SHIFT;
static uint64_t *lines[MOST_PROCESSORS];

static uint64_t ticks(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((uint64_t)high << 32) | low;
}

static double nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static double ticks_per_nanosecond(void) {
    double began = nanoseconds(), ended = began;
    uint64_t first = ticks();
    while (ended - began < 2e7)
        ended = nanoseconds();
    return (ticks() - first) / (ended - began);
}

static void access_memory(unsigned processor, uint32_t info, uint64_t address, void *data) {
    uint64_t line = address >> LINE_SHIFT;
    uint64_t *slot = &lines[processor % MOST_PROCESSORS][line % line_count];
    (void)data;
    if (*slot == line)
        return;
    *slot = line;
    struct physical *physical = qemu_plugin_get_hwaddr(info, address);
    if (!physical || qemu_plugin_hwaddr_is_io(physical))
        return;
    uint64_t place = qemu_plugin_hwaddr_phys_addr(physical);
    for (int i = 0; i < range_count; i++) {
        if (place < ranges[i].first || place > ranges[i].last)
            continue;
        uint64_t end = ticks() + ranges[i].ticks;
        while (ticks() < end)
            ;
        return;
    }
}

static void translate(uint64_t id, struct block *block) {
    const int no_registers = 0, reads_and_writes = 3;
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(block, i), access_memory, no_registers,
                                         reads_and_writes, NULL);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments) {
    double frequency = ticks_per_nanosecond();
    (void)info;
    for (int i = 0; i < count; i++) {
        unsigned long long first, last, ns, kib;
        if (sscanf(arguments[i], "range=%lli:%lli:%llu", (long long *)&first, (long long *)&last, &ns) == 3 &&
            range_count < MOST_RANGES) {
            ranges[range_count].first = first;
            ranges[range_count].last = last;
            ranges[range_count++].ticks = ns * frequency;
        } else if (sscanf(arguments[i], "cache=%llu", &kib) == 1 && kib > 0) {
            line_count = kib * 1024 >> LINE_SHIFT;
        } else {
            fprintf(stderr, "latency: unknown argument %s\n", arguments[i]);
            return 1;
        }
    }
    for (int i = 0; i < MOST_PROCESSORS; i++)
        if (!(lines[i] = calloc(line_count, sizeof(*lines[i]))))
            return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
