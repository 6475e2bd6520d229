//! Where the approval center is and as whom we speak to it.

use std::{path::PathBuf, time::Duration};

use crate::secret::Secret;

/// The section `[approval_center]`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Scheme and host of the open platform, without a `/` at the end: `https://open.feishu.cn`.
    pub base_url: String,
    /// Scheme and host of the historic APIs: `https://www.feishu.cn`.
    pub historic_base_url: String,
    /// `app_id`
    pub app_id: String,
    /// `app_secret`
    pub app_secret: Secret,
    /// Whether it is an app of one's own company or one of the store.
    pub app_type: AppType,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long one call may take with everything: waiting for its turn, the token, and being tried again.
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

/// The kinds of apps, which differ in how they get their token (platform.md#access-tokens).
#[derive(Debug, Clone)]
pub enum AppType {
    /// 自建应用
    Internal,
    /// 商店应用
    Store(StoreApp),
}

/// What an app of the store needs beside its id and secret.
#[derive(Debug, Clone)]
pub struct StoreApp {
    /// The tenant that has installed it.
    pub tenant_key: String,
    /// The ticket that the platform pushes to the app every hour. Of a file if `app_ticket_file` is set.
    pub app_ticket: Secret,
    /// Read again whenever a ticket is needed, since the platform changes it every hour.
    pub app_ticket_file: Option<PathBuf>,
}
