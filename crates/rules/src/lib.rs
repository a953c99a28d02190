//! Rules: parser, checker, windows and engine; pure.
