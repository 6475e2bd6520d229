//! The address of the approval center, and the app that connects to it.

use std::{path::PathBuf, time::Duration};

use crate::secret::Secret;

/// The section `[approval_center]`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme and host of the open platform, without a trailing `/`: `https://open.feishu.cn`.
    pub base_url: String,
    /// Scheme and host of the historic APIs: `https://www.feishu.cn`.
    pub historic_base_url: String,
    /// `app_id`
    pub app_id: String,
    /// `app_secret`
    pub app_secret: Secret,
    /// Internal app or store app.
    pub app_type: AppType,
    /// Timeout for connecting.
    pub connect_timeout: Duration,
    /// Timeout for one request.
    pub request_timeout: Duration,
    /// Deadline for a whole call: waiting for its turn, the token, and retries.
    pub call_deadline: Duration,
}

/// The brands of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// 飞书
    Feishu,
    /// Lark
    Lark,
}

impl Platform {
    /// Scheme and host of the open platform (platform.md#hosts).
    #[must_use]
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Feishu => "https://open.feishu.cn",
            Self::Lark => "https://open.larksuite.com",
        }
    }

    /// Scheme and host of the historic APIs (platform.md#hosts).
    #[must_use]
    pub fn historic_base_url(self) -> &'static str {
        match self {
            Self::Feishu => "https://www.feishu.cn",
            Self::Lark => "https://www.larksuite.com",
        }
    }
}

/// The kinds of apps, which obtain their tokens differently (platform.md#access-tokens).
#[derive(Debug, Clone)]
pub enum AppType {
    /// 自建应用
    Internal,
    /// 商店应用
    Store(StoreApp),
}

/// What a store app needs in addition to its id and secret.
#[derive(Debug, Clone)]
pub struct StoreApp {
    /// The tenant that installed the app.
    pub tenant_key: String,
    /// The ticket that the platform pushes to the app every hour. From `app_ticket_file` if set.
    pub app_ticket: Secret,
    /// Read whenever a ticket is needed, since the platform changes it every hour.
    pub app_ticket_file: Option<PathBuf>,
}
