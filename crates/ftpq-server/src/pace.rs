//! stub
/// x
pub const RATE_MIN: u64 = 16384;
