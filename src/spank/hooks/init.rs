//! The first hook in every process of Slurm.

use std::ffi::c_int;

use slurm_spank::{Context, SpankOption};

use super::input::Spank;
use super::output::SlurmLog;
use super::{client, slurmd};
use crate::log::Log;
use crate::settings::options::{OptionKind, TABLE};
use crate::spank::handle::{FAILED, OK};
use crate::spank::slurmstepd;

pub(in crate::spank) fn init(spank: &mut Spank<'_>) -> c_int {
    match spank.context() {
        Ok(Context::Slurmd) => {
            slurmd::check_plugin_order();
            slurmd::remove_leftovers()
        }
        Ok(Context::Allocator) => {
            client::forget_options_of_another_job();
            register_options(spank)
        }
        Ok(Context::Local) => {
            client::keep_own_options_of_a_step();
            register_options(spank)
        }
        Ok(Context::Remote) => {
            slurmstepd::note();
            register_options(spank)
        }
        Ok(Context::JobScript) | Err(_) => OK,
    }
}

fn register_options(spank: &mut Spank<'_>) -> c_int {
    for spec in &TABLE {
        let option = SpankOption::new(spec.name).usage(spec.help);
        let option = match spec.kind {
            OptionKind::Value(kind) => option.takes_value(kind.shown),
            OptionKind::Switch(_) => option,
        };
        if let Err(error) = spank.register_option(option) {
            SlurmLog.error(&format!("--{}: {error}", spec.name));
            return FAILED;
        }
    }
    OK
}
