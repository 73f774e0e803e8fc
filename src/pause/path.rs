//! A path that is put together from pieces, without a heap. Apart because programs and parameter files are both sought in
//! places that variables name.

/// The longest path that the kernel accepts, with its NUL.
const PATH_MAX: usize = 4096;

/// The path that is being put together. All share one buffer: there must be one at a time.
pub struct Path {
    length: usize,
}

impl Path {
    /// An empty one.
    pub fn new() -> Self {
        Self { length: 0 }
    }

    /// One of a single piece.
    ///
    /// # Safety
    /// `text` ends with a NUL.
    pub unsafe fn of(text: *const u8) -> Self {
        let mut path = Self::new();
        // SAFETY: the caller guarantees it.
        unsafe { path.add(text, b"") };
        path
    }

    fn buffer() -> *mut u8 {
        static mut BUFFER: [u8; PATH_MAX] = [0; PATH_MAX];
        (&raw mut BUFFER).cast()
    }

    /// Appends a string up to its NUL, or up to one of the bytes in `ends`. Returns the end of what it has read.
    ///
    /// # Safety
    /// `text` ends with a NUL.
    pub unsafe fn add(&mut self, mut text: *const u8, ends: &[u8]) -> *const u8 {
        // SAFETY: the caller guarantees it; what is written is within the buffer. Volatile, or the compiler would call memcpy,
        // which does not exist here.
        unsafe {
            while *text != 0 && ends.iter().all(|end| *end != *text) {
                if self.length < PATH_MAX {
                    Self::buffer().add(self.length).write_volatile(*text);
                    self.length += 1;
                }
                text = text.add(1);
            }
        }
        text
    }

    /// Does something with a longer path, and leaves this one as it was.
    ///
    /// # Safety
    /// `piece` ends with a NUL.
    pub unsafe fn with<T>(&mut self, piece: &[u8], run: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.length;
        // SAFETY: the caller guarantees it.
        unsafe { self.add(piece.as_ptr(), b"") };
        let result = run(self);
        self.length = length;
        result
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether it starts at the root, and not in the working directory.
    pub fn is_absolute(&self) -> bool {
        // SAFETY: the first byte of the buffer.
        !self.is_empty() && unsafe { *Self::buffer() } == b'/'
    }

    /// The path for the kernel, unless it is too long. Valid until the next piece is added.
    pub fn finished(&self) -> Option<*const u8> {
        if self.length == PATH_MAX {
            return None;
        }
        // SAFETY: within the buffer.
        unsafe { Self::buffer().add(self.length).write_volatile(0) };
        Some(Self::buffer())
    }
}
