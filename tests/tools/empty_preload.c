/* Stands for the preload library where a test is about how programs are started. */
extern int empty_preload_is_loaded;
int empty_preload_is_loaded = 1;
