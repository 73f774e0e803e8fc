/* A SPANK plugin that has the same hooks as spank_docker.so, and does nothing in them: the floor that jobs without an
 * image are compared with. Built by ci/bench, with the version of the lab's Slurm. */
const char plugin_name[] = "empty";
const char plugin_type[] = "spank";
const unsigned int plugin_version = VERSION;

#define HOOK(name) int name(void *spank, int argc, char **argv) { (void)spank; (void)argc; (void)argv; return 0; }
HOOK(slurm_spank_init)
HOOK(slurm_spank_init_post_opt)
HOOK(slurm_spank_job_prolog)
HOOK(slurm_spank_task_post_fork)
HOOK(slurm_spank_task_init_privileged)
HOOK(slurm_spank_task_init)
HOOK(slurm_spank_task_exit)
HOOK(slurm_spank_exit)
HOOK(slurm_spank_job_epilog)
