//! The functions of Slurm that the linker needs where the crate of the hooks is linked into a test program: no test calls them,
//! because there is no Slurm here.
#![expect(unsafe_code, reason = "C symbols")]

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
