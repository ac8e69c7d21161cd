//! Joins the parts: start, reload, supervision, shutdown.
