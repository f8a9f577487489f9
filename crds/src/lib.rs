//! The VLFineTune vocabulary that operator and trainer share.
