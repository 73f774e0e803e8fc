//! An image's archive of locales: whatever its header says, only the file's own content is read.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use spank_docker::guest::locale::archived;

fuzz_target!(|data: &[u8]| {
    let Ok(names) = archived(Cursor::new(data)) else { return };
    assert!(names.iter().map(String::len).sum::<usize>() <= data.len());
    let holds =
        |name: &String| name.is_empty() || data.windows(name.len()).any(|part| part == name.as_bytes());
    assert!(names.iter().all(holds));
});
