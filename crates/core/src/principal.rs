//! Who calls.

use serde::{Deserialize, Serialize};

use crate::{DeviceId, Error, Result, TenantId, Uid};

/// What an API token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Tenants, and the first tokens of each; no access to a tenant's data.
    Platform,
    /// Everything within the tenant.
    Admin,
    /// Devices, profiles and credentials.
    Provision,
    /// Publishing telemetry and sending commands.
    Write,
    /// Reading everything of the tenant.
    Read,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Platform, Self::Admin, Self::Provision, Self::Write, Self::Read];

    /// `platform`, `admin`, `provision`, `write` or `read`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Admin => "admin",
            Self::Provision => "provision",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A holder of an API token.
    Token {
        /// The token's public id.
        id: String,
        /// The tenant it is bound to; none for a token of the platform alone.
        tenant: Option<TenantId>,
        /// What it may do.
        scopes: Vec<Scope>,
    },
    /// A device, by one of its credentials.
    Device {
        /// Its tenant.
        tenant: TenantId,
        /// Its public id.
        device: DeviceId,
        /// Its internal uid.
        uid: Uid,
        /// The credential it showed.
        credential: String,
    },
    /// A service of this Weir. It may ask what services ask of each other, and has no access to a tenant by itself.
    Service,
}

impl Principal {
    /// Who this is, for logs and histories: `token:<id>`, `device:<id>` or `service`.
    pub fn actor(&self) -> String {
        match self {
            Self::Token { id, .. } => format!("token:{id}"),
            Self::Device { device, .. } => format!("device:{device}"),
            Self::Service => "service".to_owned(),
        }
    }

    /// Checks that this caller may do what `scope` allows in `tenant`; `admin` allows all of a tenant, and every scope
    /// but `platform` allows reading nothing but what it names. Called before anything is looked up, so that a refusal
    /// tells nothing about existence.
    ///
    /// # Errors
    /// `PermissionDenied` for a device, a service, another tenant, or without the scope.
    pub fn require(&self, tenant: &TenantId, scope: Scope) -> Result<()> {
        match self {
            Self::Device { .. } => {
                Err(Error::permission_denied("a device's credential cannot call this method"))
            }
            Self::Service => Err(Error::permission_denied(
                "a service's identity has no access to a tenant; the caller's own token is needed",
            )),
            Self::Token { tenant: own, .. } if own.as_ref() != Some(tenant) => {
                Err(Error::permission_denied(format!("this token has no access to tenants/{tenant}")))
            }
            Self::Token { scopes, .. } if scopes.contains(&Scope::Admin) || scopes.contains(&scope) => Ok(()),
            Self::Token { .. } => Err(Error::permission_denied(format!(
                "this needs a token with scope {} or admin",
                scope.as_str()
            ))),
        }
    }

    /// Checks for the `platform` scope.
    ///
    /// # Errors
    /// `PermissionDenied` without it.
    pub fn require_platform(&self) -> Result<()> {
        match self {
            Self::Token { scopes, .. } if scopes.contains(&Scope::Platform) => Ok(()),
            _ => Err(Error::permission_denied("this needs a token with scope platform")),
        }
    }

    /// Checks that this is a service, for what services ask of each other.
    ///
    /// # Errors
    /// `PermissionDenied` for everybody else, whatever they may do otherwise.
    pub fn require_service(&self) -> Result<()> {
        match self {
            Self::Service => Ok(()),
            Self::Token { .. } | Self::Device { .. } => {
                Err(Error::permission_denied("only a service of Weir may call this method"))
            }
        }
    }

    /// The tenant of this caller.
    ///
    /// # Errors
    /// `PermissionDenied` for a token that is bound to none, and for a service.
    pub fn tenant(&self) -> Result<&TenantId> {
        match self {
            Self::Token { tenant: Some(tenant), .. } | Self::Device { tenant, .. } => Ok(tenant),
            Self::Token { tenant: None, .. } => {
                Err(Error::permission_denied("this token is bound to no tenant"))
            }
            Self::Service => Err(Error::permission_denied("a service is bound to no tenant")),
        }
    }
}
