//! Strings that end with a NUL, and lists of them that end with a null pointer, as the kernel hands over arguments and variables.
//! Apart because there is no C library that would have these functions.

/// Whether a string begins with `other`.
///
/// # Safety
/// `text` ends with a NUL.
pub unsafe fn starts_with(text: *const u8, other: &[u8]) -> bool {
    // SAFETY: the caller guarantees it: the comparison stops at the NUL, which `other` has only at its end.
    other.iter().enumerate().all(|(place, byte)| unsafe { *text.add(place) } == *byte)
}

/// Whether two strings are equal.
///
/// # Safety
/// Both end with a NUL.
pub unsafe fn is_same(mut one: *const u8, mut other: *const u8) -> bool {
    // SAFETY: the caller guarantees it: the comparison ends at a difference, or at the NULs.
    unsafe {
        while one.read_volatile() == *other {
            if *other == 0 {
                return true;
            }
            one = one.add(1);
            other = other.add(1);
        }
    }
    false
}

/// The place in a list of the first string that begins with `beginning`; null, where there is none.
///
/// # Safety
/// `list` holds NUL-terminated strings and ends with a null pointer; `beginning` has no NUL.
pub unsafe fn find(mut list: *const *const u8, beginning: &[u8]) -> *const *const u8 {
    // SAFETY: the caller guarantees it.
    unsafe {
        while !(*list).is_null() {
            if starts_with(*list, beginning) {
                return list;
            }
            list = list.add(1);
        }
    }
    core::ptr::null()
}

/// The value of a variable, whose name and `=` are given.
///
/// # Safety
/// As for [`find`].
pub unsafe fn value(environment: *const *const u8, beginning: &[u8]) -> Option<*const u8> {
    // SAFETY: the caller guarantees it.
    unsafe {
        let variable = find(environment, beginning);
        if variable.is_null() { None } else { Some((*variable).add(beginning.len())) }
    }
}

/// Removes all strings with this beginning from a list.
///
/// # Safety
/// As [`find`], and the list can be written to.
pub unsafe fn remove(list: *const *const u8, beginning: &[u8]) {
    // SAFETY: the caller guarantees it.
    unsafe {
        loop {
            let mut at = find(list, beginning).cast_mut();
            if at.is_null() {
                return;
            }
            while !(*at).is_null() {
                at.write(*at.add(1));
                at = at.add(1);
            }
        }
    }
}

/// Parses a number. Returns it, and the text after it.
///
/// # Safety
/// `text` ends with a NUL.
pub unsafe fn number(mut text: *const u8) -> (u64, *const u8) {
    let mut number = 0u64;
    // SAFETY: the caller guarantees it: a NUL is no digit.
    unsafe {
        while (*text).is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(*text - b'0'));
            text = text.add(1);
        }
    }
    (number, text)
}

/// Writes a number, and a NUL. Returns its beginning.
pub fn decimal(mut number: u32, buffer: &mut [u8; 11]) -> *const u8 {
    let mut begin = buffer.as_ptr();
    for digit in buffer.iter_mut().rev().skip(1) {
        *digit = b'0' + (number % 10) as u8;
        begin = digit;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    begin
}
