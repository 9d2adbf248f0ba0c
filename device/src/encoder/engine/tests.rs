//! Held to plain loops and to tract.
