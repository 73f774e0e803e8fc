//! A registry's answer to a pull, in the engine's words: whatever it is, the user reads one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spank_docker::engine::ImageError;
use spank_docker::settings::image::Reference;
use spank_docker_fuzz::{assert_one_line, parts};

fuzz_target!(|data: &[u8]| {
    let [name, words] = parts(data).map(String::from_utf8_lossy);
    // Long names make long lines.
    let given: Option<Reference> = name.parse().ok().filter(|_| name.len() < 100);
    let known: Reference = "registry:5000/hpc/app:1".parse().expect("a reference");
    for reference in given.iter().chain([&known]) {
        assert_one_line(&ImageError::in_words(reference, &words));
    }
});
