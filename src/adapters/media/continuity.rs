//! Whether a later offer goes on where the one before stood (RFC 8829 §5.2.2, RFC 3264 §8): the stack looks at mids and
//! their order, not at what an m-line is for.

use recorder_actors::ports::MediaError;

use super::offer::{Line, Usage};

/// Compares a later offer's m-lines with those in force.
///
/// # Errors
/// [`MediaError::BadOffer`]: m-lines are missing, have changed places, or an m-line that carried one medium is to carry
/// another. An m-line that was rejected may be used again for anything.
pub fn check(before: &[Line], later: &[Line]) -> Result<(), MediaError> {
    let bad = |why: &str| Err(MediaError::BadOffer(why.to_owned()));
    if later.len() < before.len() {
        return bad("it has fewer m-lines than the offer before");
    }
    for (old, new) in before.iter().zip(later) {
        if old.usage == Usage::Rejected {
            continue;
        }
        if old.mid != new.mid {
            return bad("its m-lines have changed places");
        }
        if old.media != new.media {
            return bad("an m-line is to carry another medium than before");
        }
    }
    Ok(())
}
