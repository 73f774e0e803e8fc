//! The output of an ENTRYPOINT before, between and after the tokens around its variables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::container::exported;
use spank_docker_fuzz::parts;

const TOKEN: &str = "tok";

fn holds(output: &[u8], part: &str) -> bool {
    part.is_empty() || output.windows(part.len()).any(|window| window == part.as_bytes())
}

fuzz_target!(|data: &[u8]| {
    // Once with arbitrary output, and once with the output of the plugin's own program in it.
    let [before, list] = parts(data);
    let written = [before, b"tok\0", list, b"\0tok\0"].concat();
    for output in [data, &written] {
        for (name, value) in exported(output, TOKEN).into_iter().flatten() {
            assert!(holds(output, &format!("{name}={value}")), "{name}={value}");
            assert!(!name.is_empty() && !name.contains('='), "{name:?}");
            // Parameters of PMIx are the image's (engine::image::inspect).
            let is_parameter = name.starts_with("PMIX_MCA_") || name == "PMIX_PREFIX";
            for prefix in ["SLURM", "SPANK", "SSH_", "PMI"] {
                assert!(is_parameter || !name.starts_with(prefix), "{name}");
            }
        }
    }
    assert!(exported(&written, TOKEN).is_some());
});
