//! spank-docker in the lab. One program, so that its tests can share the lab: see `spank_docker_e2e::Lab`.

mod churn;
mod cluster;
mod ending;
mod entrypoint;
mod environment;
mod failures;
mod forged;
mod gpus;
mod hostile_image;
mod hostile_user;
mod images;
mod launching;
mod mounts;
mod options;
mod own;
mod private;
mod reach;
mod rights;
mod running;
mod secrets;
mod ssh;
mod steps;
mod upkeep;
mod upkeep_engine;
mod upkeep_settings;
mod upkeep_slurm;
