// Functions that do one thing only, for the figures that are about the sampler.
//
// usage: load grow SECONDS | work SECONDS | nap SECONDS | spike
//
// grow touches 1 MiB more every 3 ms, and begins anew after 64 MiB; work uses 0.5 % of a processor, in parts of 25 us;
// nap wakes up every 2 ms and does nothing; spike rests, holds 32 MiB for 5 ms, and rests again.
#define _GNU_SOURCE
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static char *hold(size_t size) {
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        exit(1);
    return memory;
}

int main(int count, char **args) {
    const size_t mib = 1 << 20;
    if (count < 2)
        return 2;
    double end = now() + (count > 2 ? atof(args[2]) : 0);
    if (!strcmp(args[1], "grow")) {
        while (now() < end) {
            char *memory = hold(64 * mib);
            for (int i = 0; i < 64 && now() < end; i++) {
                memset(memory + i * mib, 1, mib);
                usleep(3000);
            }
            munmap(memory, 64 * mib);
        }
    } else if (!strcmp(args[1], "work")) {
        while (now() < end) {
            double until = now() + 25e-6;
            while (now() < until) {
            }
            usleep(5000);
        }
    } else if (!strcmp(args[1], "nap")) {
        // As the sampler waits. 50 us are the slack of timers, which come later by that.
        while (now() < end)
            ppoll(NULL, 0, &(struct timespec){.tv_nsec = 1950000}, NULL);
    } else if (!strcmp(args[1], "spike")) {
        usleep(300000);
        char *memory = hold(32 * mib);
        memset(memory, 1, 32 * mib);
        usleep(5000);
        munmap(memory, 32 * mib);
        usleep(100000);
    } else {
        return 2;
    }
    return 0;
}
