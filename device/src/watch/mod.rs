//! Input beside the link: photographs that appear in a folder, and frames of a camera that
//! writes MJPEG.
//!
//! Both hand over image files as bytes or paths and know nothing of students. Both are
//! bounded in memory whatever they are given, and use no clock but the caller's.

pub mod folder;
pub mod latest;
pub mod mjpeg;
