//! What one message may hold, and why. Limits on connections and time live where they are enforced:
//! `ftpq-transport/src/tuning.rs` and `ftpq-server/src/limits.rs`.

/// Bytes of CBOR in one frame. Larger than any message below can get, and small enough that a
/// server can hold one for every stream of every client.
pub const FRAME_MAX: usize = 64 * 1024;

/// Nesting of CBOR values. The deepest message of ours nests five levels; plugins get some more.
pub const RECURSION_MAX: usize = 16;

/// Bytes of one path component: what Linux file systems hold (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// Bytes of a whole path: what one Linux system call takes (`PATH_MAX` less the final NUL).
pub const PATH_MAX: usize = 4095;

/// Components of a path: bounds the work of walking it.
pub const DEPTH_MAX: usize = 256;

/// Entries of one LIST page: 128 of the longest names still fit a frame.
pub const LIST_PAGE_MAX: usize = 128;

/// Bytes of entries after which a LIST page ends: one more of the longest link still fits the frame.
pub const LIST_PAGE_BYTES: usize = FRAME_MAX - 8 * 1024;

/// Bytes of a verb's name.
pub const VERB_MAX: usize = 64;

/// Verbs that one server may offer: their specs must fit the CON reply.
pub const VERBS_MAX: usize = 128;

/// Bytes of a verb's summary: as many verbs as there may be still fit the CON reply.
pub const SUMMARY_MAX: usize = 256;

/// Versions or features that one side may announce.
pub const FEATURES_MAX: usize = 32;

/// Further ports that a server may announce: as many as a client may have connections.
pub const PORTS_MAX: usize = 16;

/// Bytes of an error message or of another sentence meant for a person.
pub const TEXT_MAX: usize = 1024;

/// Bytes of a body that a client may send without waiting for the server's go-ahead. At most this
/// much is thrown away when the server refuses.
pub const EAGER_BODY_MAX: u64 = 256 * 1024;

/// Bytes of a file that travels as one body at the most; larger ones go by extents, so that a cut
/// costs an extent and not the file.
pub const WHOLE_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of the shortest extents: what a cut may cost, and enough to make flushing each to disk cheap.
pub const EXTENT_MIN: u64 = 8 * 1024 * 1024;

/// Bytes of the longest extents: with [`EXTENTS_MAX`] of them a file may have 16 TiB.
pub const EXTENT_MAX: u64 = 1024 * 1024 * 1024;

/// Extents of one file.
pub const EXTENTS_MAX: u32 = 16 * 1024;

/// Extents in one page of those that a server holds: they fit a frame.
pub const HELD_PAGE_MAX: usize = 1024;

/// Holes in one file or extent that are told; where there are more, the rest travels as zeros. They fit
/// a frame.
pub const HOLES_MAX: usize = 1024;

/// Bytes of one chunk of a body of unknown length.
pub const CHUNK_MAX: usize = 256 * 1024;
