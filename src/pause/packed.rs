//! `--pack` and `--unpack`: how variables get past a shell that drops them, in one that it keeps. dash and busybox pass on only
//! variables whose names a script can write: not bash's functions (`BASH_FUNC_f%%`), nor a `my.var`. Apart because the scripts
//! around ssh (`guest::ssh` in the plugin) need only this.
//!
//! The variable holds a netstring for each of them, `LENGTH:NAME=VALUE,`. The plugin's own ssh writes the same
//! (src/guest-tools/ssh/state.rs). No shell ever evaluates it.

use super::strings::{decimal, find, number, value};

const PACKED: &[u8] = b"SLURM_DOCKERODD=";
/// The most bytes of that variable. The kernel's limit for one is 128 KiB.
const MOST: usize = 120_000;
/// The most variables of a session.
const VARIABLES: usize = 65536;

/// Moves all such variables, as far as they fit, into one. Does nothing where that is there already: it is what the caller at the
/// other end of a connection had.
///
/// # Safety
/// `environment` is a list of NUL-terminated strings that ends with a null pointer, and can be written to. Called once: it uses a
/// static buffer, to which the list points afterwards.
pub unsafe fn pack(environment: *const *const u8) {
    static mut BUFFER: [u8; MOST] = [0; MOST];
    let mut packed = Packed { buffer: (&raw mut BUFFER).cast(), length: 0 };
    // SAFETY: the caller guarantees it; no more strings are put into the list than are taken out.
    unsafe {
        if !find(environment, PACKED).is_null() {
            return;
        }
        PACKED.iter().for_each(|byte| packed.push(*byte));
        let (mut from, mut to) = (environment, environment.cast_mut());
        while !(*from).is_null() {
            if !is_odd(*from) || !packed.add(*from) {
                to.write(*from);
                to = to.add(1);
            }
            from = from.add(1);
        }
        if packed.length > PACKED.len() {
            to.write(packed.buffer);
            to = to.add(1);
        }
        to.write(core::ptr::null());
    }
}

/// The variable that is being written. Its last byte stays a NUL.
struct Packed {
    buffer: *mut u8,
    length: usize,
}

impl Packed {
    /// # Safety
    /// There is room for it.
    unsafe fn push(&mut self, byte: u8) {
        // SAFETY: the caller guarantees it. Volatile, or the compiler would call memcpy, which does not exist here.
        unsafe { self.buffer.add(self.length).write_volatile(byte) };
        self.length += 1;
    }

    /// Appends a variable. Returns whether there was room for it.
    ///
    /// # Safety
    /// `variable` ends with a NUL.
    unsafe fn add(&mut self, variable: *const u8) -> bool {
        // The digits of a length, a colon and a comma; and the NUL.
        const AROUND: usize = 13;
        let mut length = 0;
        // SAFETY: the caller guarantees it, and `decimal` writes a NUL; there is room.
        unsafe {
            // Volatile, or the compiler would call strlen.
            while variable.add(length).read_volatile() != 0 {
                length += 1;
            }
            if self.length + length > MOST - AROUND {
                return false;
            }
            let mut digits = [0; 11];
            let mut digit = decimal(length as u32, &mut digits);
            while digit.read_volatile() != 0 {
                self.push(*digit);
                digit = digit.add(1);
            }
            self.push(b':');
            (0..length).for_each(|at| self.push(*variable.add(at)));
            self.push(b',');
        }
        true
    }
}

/// The variables, with those in place of the packed one that it holds. What is no netstring ends it. Others than those that
/// [`pack`] packs are left out: they are the session's own.
///
/// # Safety
/// As for [`pack`]; the strings can be written to.
pub unsafe fn unpack(environment: *const *const u8) -> *const *const u8 {
    static mut LIST: [usize; VARIABLES] = [0; VARIABLES];
    let list = (&raw mut LIST).cast::<*const u8>();
    let mut count = 0;
    // SAFETY: the caller guarantees it. No byte behind a NUL is read, and the last place of the list stays null.
    unsafe {
        let Some(mut packed) = value(environment, PACKED) else { return environment };
        let put = |place: usize, variable: *const u8| list.add(place).write_volatile(variable);
        let mut from = environment;
        while !(*from).is_null() {
            if count == VARIABLES - 1 {
                return environment;
            }
            if (*from).wrapping_add(PACKED.len()) != packed {
                put(count, *from);
                count += 1;
            }
            from = from.add(1);
        }
        while let Some((variable, behind)) = first(packed) {
            packed = behind;
            if !is_odd(variable) {
                continue;
            }
            let mut name = 0;
            while *variable.add(name) != b'=' {
                name += 1;
            }
            let same = find(list, core::slice::from_raw_parts(variable, name + 1));
            if !same.is_null() {
                same.cast_mut().write(variable);
            } else if count < VARIABLES - 1 {
                put(count, variable);
                count += 1;
            }
        }
    }
    list
}

/// The string in the first netstring, which gets a NUL in place of its comma, and the text after it.
///
/// # Safety
/// `packed` ends with a NUL, and can be written to.
unsafe fn first(packed: *const u8) -> Option<(*const u8, *const u8)> {
    // SAFETY: the caller guarantees it: the walk stops at a NUL.
    unsafe {
        let (length, mut end) = number(packed);
        if *end != b':' {
            return None;
        }
        end = end.add(1);
        let text = end;
        for _ in 0..length {
            if *end == 0 {
                return None;
            }
            end = end.add(1);
        }
        if *end != b',' {
            return None;
        }
        end.cast_mut().write(0);
        Some((text, end.add(1)))
    }
}

/// Whether this is a variable with a name that no script can write.
///
/// # Safety
/// `text` ends with a NUL.
unsafe fn is_odd(text: *const u8) -> bool {
    let (mut at, mut is_plain) = (text, true);
    // SAFETY: the caller guarantees it.
    unsafe {
        while *at != 0 && *at != b'=' {
            is_plain &= *at == b'_' || (*at).is_ascii_alphabetic() || at != text && (*at).is_ascii_digit();
            at = at.add(1);
        }
        !is_plain && *at == b'='
    }
}
