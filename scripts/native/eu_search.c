/* The search trees of libelf, for systems whose libelf.a calls these functions but does not hold them
 * (elfutils 0.192, as in Debian 13; see its bug 32293). scripts/setup adds them there.
 *
 * elfutils begins the structure with the root of the tree; a lock follows only in builds for threads,
 * and is left alone here: nothing in elastic-mem shares an ELF descriptor between threads. */
#define _GNU_SOURCE
#include <search.h>

struct tree {
    void *root;
};

typedef int compare_fn(const void *, const void *);

void eu_search_tree_init(struct tree *tree) { tree->root = 0; }

void eu_search_tree_fini(struct tree *tree, void (*free_node)(void *)) {
    tdestroy(tree->root, free_node);
    tree->root = 0;
}

void *eu_tsearch(const void *key, struct tree *tree, compare_fn *compare) {
    return tsearch(key, &tree->root, compare);
}

void *eu_tfind(const void *key, struct tree *tree, compare_fn *compare) {
    return tfind(key, &tree->root, compare);
}

void *eu_tdelete(const void *key, struct tree *tree, compare_fn *compare) {
    return tdelete(key, &tree->root, compare);
}

void eu_tdestroy(struct tree *tree, void (*free_node)(void *)) { tdestroy(tree->root, free_node); }
