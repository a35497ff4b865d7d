// A second opinion: looks a thousand times a second at the control groups that appear below a folder, one at a time.
//
// usage: reference FOLDER PREFIX VERSION
//
// Prints a line for each look: the name of the group, the time in microseconds of the epoch, anonymous + shared + kernel
// memory, usage, the kernel's own counter of the most usage, and the limit by which memory is granted (-1: none). It
// shares nothing with the sampler that it is compared with. Ends when its standard input does.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int version;

// The text of a file, or 0 when the group is gone.
static int text_of(int fd, char *buffer, size_t size) {
    ssize_t count = pread(fd, buffer, size - 1, 0);
    if (count <= 0)
        return 0;
    buffer[count] = 0;
    return 1;
}

static long long value_of(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, key, length) && line[length] == ' ')
            return atoll(line + length);
    }
    return 0;
}

// What cannot be dropped. cgroup v1 counts kernel memory by itself, to the page; the rest of usage would be that and what
// processors have charged ahead and nobody uses. Without that counter there is only the rest.
static long long held_of(const char *stat, long long usage, long long kmem) {
    if (version == 2)
        return value_of(stat, "anon") + value_of(stat, "shmem") + value_of(stat, "kernel");
    long long rss = value_of(stat, "rss"), cache = value_of(stat, "cache"), shmem = value_of(stat, "shmem");
    long long kernel = kmem >= 0 ? kmem : usage - rss - cache;
    return rss + shmem + (kernel > 0 ? kernel : 0);
}

static void watch(int parent, const char *name, int timer) {
    char text[16384];
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int usage_file = openat(folder, version == 2 ? "memory.current" : "memory.usage_in_bytes", O_RDONLY | O_CLOEXEC);
    int kmem_file = version == 2 ? -1 : openat(folder, "memory.kmem.usage_in_bytes", O_RDONLY | O_CLOEXEC);
    int stat_file = openat(folder, "memory.stat", O_RDONLY | O_CLOEXEC);
    int peak_file = openat(folder, version == 2 ? "memory.peak" : "memory.max_usage_in_bytes", O_RDONLY | O_CLOEXEC);
    int limit_file = openat(folder, version == 2 ? "memory.high" : "memory.limit_in_bytes", O_RDONLY | O_CLOEXEC);
    long long counter = 0, limit = -1;
    while (usage_file >= 0 && stat_file >= 0) {
        if (!text_of(usage_file, text, sizeof text))
            break;
        long long usage = atoll(text);
        long long kmem = kmem_file >= 0 && text_of(kmem_file, text, sizeof text) ? atoll(text) : -1;
        if (!text_of(stat_file, text, sizeof text))
            break;
        long long held = held_of(text, usage, kmem);
        if (peak_file >= 0 && text_of(peak_file, text, sizeof text))
            counter = atoll(text);
        if (limit_file >= 0 && text_of(limit_file, text, sizeof text))
            limit = *text == 'm' ? -1 : atoll(text);
        struct timespec time;
        clock_gettime(CLOCK_REALTIME, &time);
        long long now = time.tv_sec * 1000000LL + time.tv_nsec / 1000;
        printf("%s %lld %lld %lld %lld %lld\n", name, now, held, usage, counter, limit);
        unsigned long long passed;
        if (read(timer, &passed, sizeof passed) < 0)
            break;
        // An open file of v1 outlives its group without an error.
        if (faccessat(parent, name, F_OK, 0))
            break;
    }
    close(folder);
    close(usage_file);
    close(stat_file);
    close(kmem_file);
    close(peak_file);
    close(limit_file);
}

int main(int count, char **args) {
    if (count != 4)
        return 2;
    version = atoi(args[3]);
    // It must be on time more than anybody else: its word is what counts. Without the right to that it is not.
    struct sched_param first = {.sched_priority = 10};
    if (sched_setscheduler(0, SCHED_FIFO, &first))
        setpriority(PRIO_PROCESS, 0, -20);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec period = {{0, 1000000}, {0, 1000000}};
    timerfd_settime(timer, 0, &period, NULL);
    int parent = open(args[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char last[512] = "";
    for (;;) {
        struct pollfd input = {0, POLLIN, 0};
        if (poll(&input, 1, 0) != 0)
            return 0;
        DIR *folder = opendir(args[1]);
        struct dirent *entry;
        char found[512] = "";
        while (folder && (entry = readdir(folder)))
            if (!strncmp(entry->d_name, args[2], strlen(args[2])) && strcmp(entry->d_name, last))
                snprintf(found, sizeof found, "%s", entry->d_name);
        if (folder)
            closedir(folder);
        if (*found) {
            watch(parent, found, timer);
            strcpy(last, found);
        }
        unsigned long long passed;
        if (read(timer, &passed, sizeof passed) < 0)
            return 1;
    }
}
