//! Pages of a list: sizes within bounds, tokens that are opaque to the caller.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use weir_core::{Error, Result};

/// A page without a size.
pub const SIZE_DEFAULT: usize = 100;
/// A page at most; more only costs memory on both sides.
pub const SIZE_MAX: usize = 1_000;

/// The size of a page: 1 to 1,000, and 100 for 0.
///
/// # Errors
/// `PAGE_SIZE_INVALID` below 0; above 1,000 it is 1,000 (AIP-158).
pub fn size(page_size: i32) -> Result<usize> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_) => Err(Error::invalid(
            "page_size",
            "PAGE_SIZE_INVALID",
            format!("page_size {page_size} must be between 0 and {SIZE_MAX}"),
        )
        .with_limit(SIZE_MAX)),
    }
}

/// The token of a page that begins after `key`.
pub fn token(key: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The key of a token; none for the first page.
///
/// # Errors
/// `PAGE_TOKEN_INVALID` for a token that was not given out.
pub fn key(page_token: &str) -> Result<Option<Vec<u8>>> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(page_token).map_err(|source| {
        Error::invalid("page_token", "PAGE_TOKEN_INVALID", "page_token is not one that a page gave")
            .with_source(source)
    })?;
    Ok(Some(bytes))
}
