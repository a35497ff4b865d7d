// Strains memory in one way, and ends with 1 and the name of the call at the first system call that fails.
//
// usage: strain calls ROUNDS SEED | burst MIB MIB_PER_S TIMES | forks COUNT TIMES | reserve MIB TIMES |
//               tmpfs MIB TIMES | cache MIB TIMES
//
// calls forks, writes to tmpfs, reads into fresh mappings and uses sockets and pipes, while its memory rises and falls:
// the calls that fail with ENOMEM or EFAULT where a plain page fault only waits. SEED is that of the pauses.
// burst touches memory at a rate after a rest; forks starts COUNT children at once; reserve maps memory, rests and
// touches it; tmpfs and cache write a file, rest and read it.
//
// Prints one line of JSON with a digest of all that was read.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static uint64_t digest = 0xcbf29ce484222325;

static void fail(const char *call) {
    fprintf(stderr, "failed call: %s: %s\n", call, strerror(errno));
    exit(1);
}

static void lost(const char *what) {
    fprintf(stderr, "failed call: %s\n", what);
    exit(1);
}

static long require(long result, const char *call) {
    if (result < 0)
        fail(call);
    return result;
}

static void rest(int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (nanosleep(&time, &time) && errno == EINTR) {
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static char *map(size_t size) {
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void unmap(char *memory, size_t size) { require(munmap(memory, size), "munmap"); }

// FNV-1a, over eight bytes at a time.
static void add(const char *data, size_t size) {
    for (size_t at = 0; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, data + at, 8);
        digest = (digest ^ word) * 0x100000001b3;
    }
}

static void fill(char *data, size_t size, unsigned salt) {
    for (size_t at = 0; at + 4 <= size; at += 4) {
        unsigned word = (unsigned)at * 2654435761u + salt;
        memcpy(data + at, &word, 4);
    }
}

// A file of `size` bytes, written in parts of a MiB. At a limit a write fails or is cut short.
static int write_file(const char *path, size_t size, unsigned salt) {
    static char part[MIB];
    int file = require(open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "open");
    for (size_t at = 0; at < size; at += MIB) {
        fill(part, MIB, salt + at / MIB);
        if (require(write(file, part, MIB), "write to a file") != (long)MIB)
            lost("write to a file: cut short");
    }
    return file;
}

// Reads a file into memory that has never been touched, in one call.
static void read_fresh(int file, size_t size) {
    char *memory = map(size);
    if (require(pread(file, memory, size, 0), "read into a fresh mapping") != (long)size)
        lost("read into a fresh mapping: cut short");
    add(memory, size);
    unmap(memory, size);
}

static void end_file(int file, const char *path) {
    require(close(file), "close");
    require(unlink(path), "unlink");
}

// `count` children at once; each touches memory of its own.
static void forks(int count, size_t size, int milliseconds) {
    for (int i = 0; i < count; i++) {
        if (require(fork(), "fork") == 0) {
            char *memory = map(size);
            memset(memory, i, size);
            rest(milliseconds);
            _exit(memory[size / 2] == (char)i ? 0 : 1);
        }
    }
    for (int i = 0; i < count; i++) {
        int status;
        require(wait(&status), "wait");
        if (status != 0)
            lost(WIFSIGNALED(status) ? "a child was killed" : "a child failed");
    }
}

// Fills what the kernel holds between the two ends, without a reader; then reads it.
static void through(int to, int from, const char *call) {
    static char part[65536];
    require(fcntl(to, F_SETFL, O_NONBLOCK), "fcntl");
    fill(part, sizeof part, 7);
    size_t sent = 0;
    for (;;) {
        long count = write(to, part, sizeof part);
        if (count < 0 && errno == EAGAIN)
            break;
        sent += require(count, call);
    }
    for (size_t left = sent; left > 0;) {
        long count = require(read(from, part, sizeof part), "read from a socket or pipe");
        if (count == 0)
            lost("read from a socket or pipe: the end");
        left -= count;
    }
    require(close(to), "close");
    require(close(from), "close");
}

static void sockets(int kind) {
    int ends[2], size = 1 << 20;
    require(socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, ends), "socketpair");
    require(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), "setsockopt");
    through(ends[0], ends[1], "write to a socket");
}

static void pipes(void) {
    int ends[2];
    require(pipe2(ends, O_CLOEXEC), "pipe");
    require(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20), "fcntl, size of a pipe");
    through(ends[1], ends[0], "write to a pipe");
}

static void calls(int rounds, unsigned seed) {
    for (int round = 0; round < rounds; round++) {
        size_t size = (size_t)(8 + 8 * (round % 4)) * MIB;
        char *memory = map(size);
        memset(memory, 1, size);
        rest(rand_r(&seed) % 40);
        int file = write_file("/dev/shm/strain", 8 * MIB, round);
        forks(8, MIB, 1);
        read_fresh(file, 8 * MIB);
        end_file(file, "/dev/shm/strain");
        unmap(memory, size);
        rest(rand_r(&seed) % 150);
        file = write_file("/tmp/strain", 6 * MIB, round);
        read_fresh(file, 6 * MIB);
        for (int i = 0; i < 4; i++) {
            sockets(SOCK_STREAM);
            sockets(SOCK_SEQPACKET);
            pipes();
        }
        end_file(file, "/tmp/strain");
    }
}

static void burst(size_t mib, double rate, int times) {
    for (int i = 0; i < times; i++) {
        rest(300);
        char *memory = map(mib * MIB);
        double begin = now();
        for (size_t at = 0; at < mib; at++) {
            memset(memory + at * MIB, 1, MIB);
            while (now() < begin + at / rate) {
            }
        }
        rest(50);
        unmap(memory, mib * MIB);
    }
}

static void reserve(size_t mib, int times) {
    char *memory = map(mib * MIB);
    for (int i = 0; i < times; i++) {
        rest(500);
        memset(memory, i + 1, mib * MIB);
        rest(200);
        require(madvise(memory, mib * MIB, MADV_DONTNEED), "madvise");
    }
    unmap(memory, mib * MIB);
}

static void files(const char *path, size_t mib, int times) {
    for (int i = 0; i < times; i++) {
        rest(300);
        int file = write_file(path, mib * MIB, i);
        rest(200);
        char *part = map(MIB);
        for (size_t at = 0; at < mib; at++) {
            if (require(pread(file, part, MIB, at * MIB), "read of a file") != (long)MIB)
                lost("read of a file: cut short");
            add(part, MIB);
        }
        unmap(part, MIB);
        end_file(file, path);
    }
}

int main(int count, char **args) {
    const char *what = count > 1 ? args[1] : "";
    int given[3] = {0, 0, 0};
    for (int i = 0; i < 3 && i + 2 < count; i++)
        given[i] = atoi(args[i + 2]);
    if (!strcmp(what, "calls") && count == 4)
        calls(given[0], given[1]);
    else if (!strcmp(what, "burst") && count == 5)
        burst(given[0], given[1], given[2]);
    else if (!strcmp(what, "forks") && count == 4)
        for (int i = 0; i < given[1]; i++) {
            rest(300);
            forks(given[0], 2 * MIB, 50);
        }
    else if (!strcmp(what, "reserve") && count == 4)
        reserve(given[0], given[1]);
    else if (!strcmp(what, "tmpfs") && count == 4)
        files("/dev/shm/strain", given[0], given[1]);
    else if (!strcmp(what, "cache") && count == 4)
        files("/tmp/strain", given[0], given[1]);
    else
        return 2;
    printf("{\"digest\": \"%016llx\"}\n", (unsigned long long)digest);
    return 0;
}
