//! Why a host could not authenticate.

use crate::spec::Status;
use crate::spec::authentication::Explanation;

/// Why a host could not authenticate, or its controller could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The controller wants what this host was given no key for.
    #[error("the controller requires authentication, and no key was given (dhchap_key)")]
    NoKey,
    /// The controller wants a secure channel on top, which this host was not told to make.
    #[error("the controller requires a secure channel by authentication (secure_concatenation)")]
    SecureChannel,
    /// The controller has ended it. It does not say what was wrong.
    #[error("the controller refuses: {explanation}{hint}", explanation = .0, hint = hint(*.0))]
    Refused(Explanation),
    /// The controller has a wrong key, or none.
    #[error(
        "the controller does not prove that it has the key that was given for it (dhchap_ctrlr_key)"
    )]
    ControllerNotAuthentic,
    /// The controller has sent what it must not.
    #[error("the controller sent {0}")]
    Protocol(&'static str),
    /// The connection has ended before the authentication did. Controllers may end it without a word where a key is wrong,
    /// or where they have no secure channel: Linux does now and then, since it ends the connection right behind its answer.
    #[error(
        "the controller ended the connection without saying why (wrong or missing key{}?)",
        if *concatenates { ", or no secure_concatenation there" } else { "" }
    )]
    Ended {
        /// A secure channel was asked for (secure concatenation).
        concatenates: bool,
    },
    /// It knows no such commands, or not now.
    #[error("the controller refuses an authentication command: {0}")]
    Command(Status),
    /// The machine is in no state to do it.
    #[error("{0}")]
    Local(&'static str),
}

fn hint(explanation: Explanation) -> &'static str {
    match explanation {
        Explanation::AUTHENTICATION_FAILED => " (wrong or missing key, on either side)",
        _ => "",
    }
}
