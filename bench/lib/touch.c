// Four functions as kernels that count their touches of memory by the node on which the page lies.
//
// usage: touch FUNCTION MIB [FILE]
//
// dna draws the picture of a genome; thumbnail scales a picture down; recognition applies a network to pictures;
// pagerank ranks the vertices of a random graph whose popular vertices get more popular. Each has about MIB of memory, of
// the shape that the real one has: which part is written once, read in order, read again and again, or read at random.
//
// Prints a line of JSON at the end of each stage: the touches of lines of 64 bytes by node, where pages lie then
// (move_pages(2)), and in the last line a digest of the result. With FILE it stays until there is such a file.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, LINES = PAGE / 64, NODES = 64, PARTS = 8 };

// A part of the memory, with the touches of each of its pages in this stage.
struct part {
    char *at;
    size_t pages;
    uint64_t *touches;
};
static struct part parts[PARTS];
static int count;

static struct part *hold(size_t bytes) {
    struct part *part = &parts[count++];
    part->pages = (bytes + PAGE - 1) / PAGE;
    part->at = mmap(NULL, part->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // Ours alone, so that it is not counted with the function's: shared memory is not anonymous.
    part->touches = mmap(NULL, part->pages * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (part->at == MAP_FAILED || part->touches == MAP_FAILED) {
        fprintf(stderr, "touch: no memory\n");
        exit(1);
    }
    return part;
}

// All of it in order, so often.
static void pass(struct part *part, uint64_t times) {
    for (size_t page = 0; page < part->pages; page++)
        part->touches[page] += LINES * times;
}

static void touch(struct part *part, size_t offset) {
    part->touches[offset / PAGE]++;
}

static void stage(const char *name) {
    enum { AT_ONCE = 512 };
    uint64_t by_node[NODES] = {0};
    for (struct part *part = parts; part < parts + count; part++)
        for (size_t page = 0; page < part->pages; page += AT_ONCE) {
            void *pages[AT_ONCE];
            int nodes[AT_ONCE];
            size_t here = part->pages - page < AT_ONCE ? part->pages - page : AT_ONCE;
            for (size_t i = 0; i < here; i++)
                pages[i] = part->at + (page + i) * PAGE;
            if (syscall(SYS_move_pages, 0, here, pages, NULL, nodes, 0) < 0) {
                perror("touch: move_pages");
                exit(1);
            }
            for (size_t i = 0; i < here; i++) {
                if (nodes[i] >= 0 && nodes[i] < NODES)
                    by_node[nodes[i]] += part->touches[page + i];
                part->touches[page + i] = 0;
            }
        }
    printf("{\"stage\":\"%s\",\"touches\":{", name);
    const char *comma = "";
    for (int node = 0; node < NODES; node++)
        if (by_node[node]) {
            printf("%s\"%d\":%llu", comma, node, (unsigned long long)by_node[node]);
            comma = ",";
        }
    printf("}}\n");
    fflush(stdout);
}

static uint64_t seed = 1;
static uint64_t next(void) {
    // Steele et al., Fast splittable pseudorandom number generators, OOPSLA 2014.
    uint64_t z = seed += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t digest_of(const struct part *part) {
    uint64_t digest = 14695981039346656037u;
    const uint64_t *words = (const uint64_t *)part->at;
    for (size_t i = 0; i < part->pages * PAGE / 8; i++)
        digest = (digest ^ words[i]) * 1099511628211u;
    return digest;
}

// The sequence, two coordinates for each base, and all of them as text: steep, then a plateau.
static uint64_t dna(size_t bytes) {
    size_t bases = bytes / (1 + 2 * sizeof(int32_t) + 16);
    struct part *sequence = hold(bases);
    for (size_t i = 0; i < bases; i += 8) {
        uint64_t word = next() & 0x0303030303030303;
        memcpy(sequence->at + i, &word, bases - i < 8 ? bases - i : 8);
    }
    pass(sequence, 1);
    stage("read");
    struct part *line = hold(bases * 2 * sizeof(int32_t));
    int32_t *points = (int32_t *)line->at, x = 0, y = 0;
    for (size_t i = 0; i < bases; i++) {
        static const int up[] = {1, -1, 2, -2};
        points[2 * i] = x++;
        points[2 * i + 1] = y += up[(int)sequence->at[i]];
    }
    pass(sequence, 1);
    pass(line, 1);
    stage("transform");
    struct part *text = hold(bases * 16);
    for (size_t i = 0; i < bases; i++) {
        char *to = text->at + i * 16;
        uint32_t numbers[2] = {points[2 * i], points[2 * i + 1]};
        for (int j = 0; j < 16; j++)
            to[j] = "0123456789abcdef"[numbers[j / 8] >> (4 * (j % 8)) & 15];
    }
    pass(line, 1);
    pass(text, 1);
    stage("print");
    return digest_of(text);
}

// The picture is written once and read once.
static uint64_t thumbnail(size_t bytes) {
    enum { WIDTH = 2048, SMALL = 128 };
    size_t rows = bytes / (WIDTH * 3) / SMALL * SMALL;
    struct part *picture = hold(rows * WIDTH * 3);
    for (size_t i = 0; i + 8 <= rows * WIDTH * 3; i += 8) {
        uint64_t word = next();
        memcpy(picture->at + i, &word, 8);
    }
    pass(picture, 1);
    stage("decode");
    struct part *small = hold(SMALL * SMALL * 3 * sizeof(uint32_t));
    uint32_t *sums = (uint32_t *)small->at;
    const unsigned char *from = (const unsigned char *)picture->at;
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < WIDTH; column++)
            for (int colour = 0; colour < 3; colour++)
                sums[(row * SMALL / rows * SMALL + column * SMALL / WIDTH) * 3 + colour] +=
                    from[(row * WIDTH + column) * 3 + colour];
    pass(picture, 1);
    pass(small, 1);
    stage("scale");
    return digest_of(small);
}

// The weights are written once and read for each picture, which is small.
static uint64_t recognition(size_t bytes) {
    enum { SIDE = 1024, PICTURES = 5 };
    size_t layers = bytes / (SIDE * SIDE * sizeof(int16_t));
    struct part *model = hold(layers * SIDE * SIDE * sizeof(int16_t));
    for (size_t i = 0; i < model->pages * PAGE; i += 8) {
        uint64_t word = next();
        memcpy(model->at + i, &word, 8);
    }
    pass(model, 1);
    stage("load");
    struct part *values = hold(2 * SIDE * sizeof(int32_t));
    int32_t *in = (int32_t *)values->at, *out = in + SIDE;
    struct part *picture = hold(512 << 10);
    uint64_t digest = 0;
    for (int turn = 0; turn < PICTURES; turn++) {
        for (size_t i = 0; i < picture->pages * PAGE; i += 8) {
            uint64_t word = next();
            memcpy(picture->at + i, &word, 8);
        }
        memset(in, 0, SIDE * sizeof *in);
        for (size_t i = 0; i < picture->pages * PAGE; i++)
            in[i % SIDE] += picture->at[i];
        pass(picture, 2);
        stage("preprocess");
        for (size_t layer = 0; layer < layers; layer++) {
            const int16_t *weights = (const int16_t *)model->at + layer * SIDE * SIDE;
            for (int row = 0; row < SIDE; row++) {
                int64_t sum = 0;
                for (int column = 0; column < SIDE; column++)
                    sum += (int64_t)weights[row * SIDE + column] * in[column];
                out[row] = sum < 0 ? 0 : sum >> 20;
            }
            memcpy(in, out, SIDE * sizeof *in);
        }
        pass(model, 1);
        stage("inference");
        digest ^= digest_of(values) + turn;
    }
    return digest;
}

// The edges are read in order in each turn, the ranks of their ends at random: of popular vertices most often.
static uint64_t pagerank(size_t bytes) {
    enum { EDGES = 10, TURNS = 4 };
    size_t vertices = bytes / (EDGES * sizeof(uint32_t) + 2 * sizeof(uint64_t));
    struct part *graph = hold(vertices * EDGES * sizeof(uint32_t));
    uint32_t *ends = (uint32_t *)graph->at;
    for (size_t i = 0; i < vertices * EDGES; i++) {
        // A vertex, or the end of an earlier edge.
        uint64_t chance = next();
        size_t vertex = i / EDGES;
        ends[i] = i < EDGES || chance & 1 ? (chance >> 1) % (vertex + 1) : ends[(chance >> 1) % i];
    }
    pass(graph, 1);
    stage("build");
    struct part *now = hold(vertices * sizeof(uint64_t)), *then = hold(vertices * sizeof(uint64_t));
    for (size_t i = 0; i < vertices; i++)
        ((uint64_t *)then->at)[i] = 1 << 20;
    pass(then, 1);
    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t *rank = (uint64_t *)now->at, *before = (uint64_t *)then->at;
        for (size_t i = 0; i < vertices; i++)
            rank[i] = (15 << 20) / 100;
        for (size_t i = 0; i < vertices * EDGES; i++) {
            rank[ends[i]] += before[i / EDGES] * 85 / 100 / EDGES;
            touch(now, ends[i] * sizeof(uint64_t));
        }
        pass(graph, 1);
        pass(now, 1);
        pass(then, 1);
        struct part *other = now;
        now = then;
        then = other;
        stage("iterate");
    }
    return digest_of(then);
}

int main(int words, char **args) {
    static const struct {
        const char *name;
        uint64_t (*run)(size_t);
    } functions[] = {{"dna", dna}, {"thumbnail", thumbnail}, {"recognition", recognition}, {"pagerank", pagerank}};
    long mib = words > 2 ? atol(args[2]) : 0;
    // So that a ratio is exact to the page.
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    for (size_t i = 0; mib > 0 && i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(args[1], functions[i].name)) {
            uint64_t digest = functions[i].run((size_t)mib << 20);
            printf("{\"stage\":\"end\",\"digest\":\"%016llx\"}\n", (unsigned long long)digest);
            fflush(stdout);
            while (words > 3 && access(args[3], F_OK))
                usleep(20000);
            return 0;
        }
    fprintf(stderr, "usage: touch dna|thumbnail|recognition|pagerank MIB [FILE]\n");
    return 2;
}
