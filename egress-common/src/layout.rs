//! Compile-time proof that a type can cross between kernel and agent.

/// Declares types that live in kernel maps.
///
/// For each it proves that the size is the sum of the field sizes, so that no
/// padding byte exists: the kernel compares keys as raw memory, and a padding
/// byte would leak stack contents and make equal keys differ. It then makes
/// the one `unsafe` promise that aya asks for on the user side.
macro_rules! shared {
    ($($name:ident: $size:literal = { $($field:tt: $type:ty),+ $(,)? })+) => { $(
        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            assert!(core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$type>())+);
            // Naming every field keeps the list above complete and in step.
            #[allow(dead_code)]
            fn every_field(value: $name) { let $name { $($field: _),+ } = value; }
        };
        #[cfg(feature = "user")]
        // SAFETY: the type is `repr(C)`, `Copy`, made of integers and arrays of
        // integers only (every bit pattern is a value), and the assertion above
        // proves that it has no padding.
        unsafe impl aya::Pod for $name {}
    )+ };
}

pub(crate) use shared;

/// Reads a shared type from the bytes that the kernel wrote; `None` if their
/// number is another one.
#[cfg(feature = "user")]
pub(crate) fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the length is right, `Pod` promises that every bit pattern is a
    // value, and an unaligned read asks nothing of the address.
    Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
