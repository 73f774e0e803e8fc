/* Slurm, as far as the hooks of a job without an image see it, with an allocator
 * that counts. Loads the plugin that is its argument and calls each hook once;
 * prints a line `HOOK VALUE ALLOCATIONS` for each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static unsigned long allocations;

void *malloc(size_t size) { allocations++; return __libc_malloc(size); }
void *calloc(size_t n, size_t size) { allocations++; return __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { allocations++; return __libc_realloc(old, size); }
void *aligned_alloc(size_t to, size_t size) { allocations++; return __libc_memalign(to, size); }
int posix_memalign(void **result, size_t to, size_t size)
{
    allocations++;
    *result = __libc_memalign(to, size);
    return *result ? 0 : ENOMEM;
}

/* A number of spank.h's enum spank_err: whatever was asked for is not there. */
enum { ABSENT = 9 };

/* slurmstepd: S_CTX_REMOTE. */
int spank_context(void) { return 2; }

/* Every item is a number here: the job's, and the step's. */
int spank_get_item(void *spank, int item, ...)
{
    va_list arguments;
    va_start(arguments, item);
    *va_arg(arguments, uint32_t *) = item == 3 ? 0xfffffffc : 4000000000u;
    va_end(arguments);
    return spank ? ABSENT : 0;
}

int spank_getenv(void *spank, const char *name, char *buffer, int size)
{
    (void)spank, (void)name, (void)buffer, (void)size;
    return ABSENT;
}

int spank_option_register(void *spank, void *option) { (void)spank, (void)option; return 0; }
int spank_setenv(void) { return ABSENT; }
int spank_unsetenv(void) { return ABSENT; }
int spank_job_control_setenv(void) { return ABSENT; }
int spank_option_getopt(void) { return ABSENT; }
const char *spank_strerror(int error) { (void)error; return "absent"; }
void slurm_spank_log(const char *format, ...) { (void)format; }
int slurm_error(const char *format, ...) { (void)format; return 0; }
void slurm_info(const char *format, ...) { (void)format; }
void slurm_verbose(const char *format, ...) { (void)format; }
void slurm_debug(const char *format, ...) { (void)format; }
void slurm_debug2(const char *format, ...) { (void)format; }
void slurm_debug3(const char *format, ...) { (void)format; }

int main(int argc, char **argv)
{
    static const char *const hooks[] = {
        "slurm_spank_init", "slurm_spank_init_post_opt", "slurm_spank_job_prolog", "slurm_spank_task_post_fork",
        "slurm_spank_task_init_privileged", "slurm_spank_task_init", "slurm_spank_task_exit", "slurm_spank_exit",
        "slurm_spank_job_epilog",
    };
    void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (!plugin) {
        fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "usage: idle PLUGIN.so");
        return 1;
    }
    for (size_t at = 0; at < sizeof hooks / sizeof *hooks; at++) {
        int (*hook)(void *, int, char **) = (int (*)(void *, int, char **))dlsym(plugin, hooks[at]);
        unsigned long before = allocations;
        int value = hook ? hook(NULL, 0, NULL) : -99;
        unsigned long after = allocations;
        printf("%s %d %lu\n", hooks[at], value, after - before);
    }
    return 0;
}
