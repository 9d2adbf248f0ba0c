//! The device: encodes query images with a student and finds them in a gallery.
pub mod encoder;
