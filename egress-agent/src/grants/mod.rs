//! Permissions earned at run time; pure, now is an argument.
