/* The header is C: this file is compiled as C11 and uses each kind of call once. */
#include <pnode/pnode.h>
#include <string.h>

const char* api_c_test(void);

/* What went wrong, or NULL. */
static const char* use_buffer(pn_heap* heap) {
    void* buffer = NULL;
    uint8_t state = PN_PAGE_POISONED;
    uint64_t done = 0;
    if (pn_buffer_alloc(heap, PN_PAGE_BYTES, 0, &buffer) != 0) return "pn_buffer_alloc";
    memset(buffer, 'c', PN_PAGE_BYTES);
    if (pn_demote(heap, buffer, PN_PAGE_BYTES, &done) != 0 || done != 1) return "pn_demote";
    if (pn_promote(heap, buffer, PN_PAGE_BYTES) != 0) return "pn_promote";
    if (pn_pin(heap, buffer, PN_PAGE_BYTES) != 0) return "pn_pin";
    if (pn_query(heap, buffer, PN_PAGE_BYTES, &state) != 0 || state != PN_PAGE_NEAR) return "pn_query";
    if (pn_unpin(heap, buffer, PN_PAGE_BYTES) != 0) return "pn_unpin";
    if (((const char*)buffer)[PN_PAGE_BYTES - 1] != 'c') return "the buffer's bytes";
    if (pn_release(heap, buffer, PN_PAGE_BYTES) != 0) return "pn_release";
    if (((const char*)buffer)[0] != 0) return "released bytes";
    return pn_buffer_free(heap, buffer, PN_PAGE_BYTES) == 0 ? NULL : "pn_buffer_free";
}

const char* api_c_test(void) {
    pn_heap_options options;
    pn_stats_t stats = {.struct_bytes = sizeof(stats), .version = PN_VERSION};
    pn_heap* heap = NULL;
    const char* wrong = NULL;
    pn_heap_options_init(&options);
    options.node_spec = "memory:16M";
    options.address_bytes_max = 64u << 20;
    options.activation_bytes = 0;
    if (pn_heap_open(&options, &heap) != 0) return "pn_heap_open";
    wrong = use_buffer(heap);
    if (wrong == NULL && pn_stats(heap, &stats) != 0) wrong = "pn_stats";
    if (wrong == NULL && stats.demotions == 0) wrong = "stats.demotions";
    if (pn_heap_close(heap) != 0 && wrong == NULL) wrong = "pn_heap_close";
    return wrong;
}
