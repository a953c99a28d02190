//! Registry: tenants, tokens, profiles, devices, credentials.
