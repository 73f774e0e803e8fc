//! The functions of Slurm that the linker needs, since the crate of the hooks is linked into these tests too.
//! No test calls them: there is no Slurm here. The prolog's configuration of Slurm is a file without settings.
#![expect(unsafe_code, reason = "C symbols")]

use std::path::Path;
use std::{env, fs};

macro_rules! never_called {
    ($($symbol:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $symbol() {
                unreachable!("no Slurm here");
            }
        )*
    };
}

never_called!(slurm_error slurm_info slurm_verbose slurm_debug slurm_debug2 slurm_debug3);

/// Makes a start use a cluster's configuration without settings.
pub(crate) fn configure(directory: &Path) {
    let slurm_conf = directory.join("slurm.conf");
    fs::write(&slurm_conf, "").unwrap();
    // SAFETY: the test has one thread.
    unsafe { env::set_var("SLURM_CONF", slurm_conf) };
}
