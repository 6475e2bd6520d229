//! The words of `init`, in both languages.

use std::path::Path;

use clap::ValueEnum;

use super::Format;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Lang {
    /// Chinese
    Zh,
    /// English
    En,
}

impl Lang {
    /// The language of the environment. The first variable that says something counts, as everywhere.
    pub(super) fn of_environment() -> Self {
        let named = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        if named.is_some_and(|value| value.starts_with("zh")) { Self::Zh } else { Self::En }
    }

    pub(super) fn phrases(self) -> &'static Phrases {
        match self {
            Self::Zh => &ZH,
            Self::En => &EN,
        }
    }

    /// The value of `locale` in the configuration.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Zh => "zh",
            Self::En => "en",
        }
    }
}

#[derive(Debug)]
pub(super) struct Phrases {
    pub(super) ask_endpoint: &'static str,
    pub(super) ask_public_url: &'static str,
    pub(super) ask_encrypted: &'static str,
    pub(super) ask_context: &'static str,
    pub(super) ask_broker: &'static str,
    pub(super) ask_ledger: &'static str,
    pub(super) yes: &'static str,
    pub(super) say_yes_or_no: &'static str,
    pub(super) say_format: &'static str,
    pub(super) missing: &'static str,
    pub(super) no_url: &'static str,
    pub(super) not_https: &'static str,
    pub(super) no_directory: &'static str,
    pub(super) is_there: &'static str,
    pub(super) wrote: &'static str,
    pub(super) kept: &'static str,
    pub(super) kept_before: &'static str,
    pub(super) head: &'static str,
    pub(super) about_http: &'static str,
    pub(super) about_admin: &'static str,
    pub(super) about_ledger: &'static str,
    pub(super) about_locale: &'static str,
    pub(super) about_credentials: &'static str,
    pub(super) about_context: &'static str,
    pub(super) definition: &'static str,
    pub(super) task: &'static str,
    pub(super) card: &'static str,
    pub(super) content_of: &'static str,
    pub(super) hidden: &'static str,
    pub(super) signed_context: &'static str,
    /// The locale of texts at the platform.
    pub(super) platform_locale: &'static str,
    next: &'static str,
    steps: [&'static str; 5],
    sign: &'static str,
    register: &'static str,
}

impl Phrases {
    /// What to do next, with the commands.
    pub(super) fn next_steps(
        &self,
        configuration: &Path,
        endpoint: &str,
        public_url: &str,
        format: Format,
    ) -> String {
        // A path with a blank or a quotation mark is one word to a shell only when it is quoted.
        let path = configuration.display().to_string();
        let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
        let path = if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) };
        let commands = [
            format!("countersign config check --config {path}"),
            format!("countersign serve --config {path}"),
            format!("countersign doctor --config {path} --public-url {public_url}"),
            format!("countersign send --config {path} --endpoint {endpoint}"),
            "countersign emulator".to_owned(),
        ];
        let mut text = format!("\n{}\n", self.next);
        for (number, (step, command)) in self.steps.iter().zip(&commands).enumerate() {
            text.push_str(&format!("{}. {step}\n   {command}\n", number + 1));
        }
        let more = match format {
            Format::Jwt => self.sign,
            Format::Registry => self.register,
            Format::Json | Format::Pattern | Format::Opaque => "",
        };
        text.push_str(&more.replace("{path}", &path).replace("{endpoint}", endpoint));
        text
    }
}

const EN: Phrases = Phrases {
    ask_endpoint: "Name of the endpoint, the last part of the URL",
    ask_public_url: "Scheme and host at which the approval center reaches this service, such as https://hook.example.com",
    ask_encrypted: "Does the approval center encrypt callbacks with a key? yes or no",
    ask_context: "How does the action_context say which task is meant: json, jwt, registry, pattern or opaque",
    ask_broker: "URL of RabbitMQ",
    ask_ledger: "Where decisions are kept: the path of a SQLite file, or postgres://user@host/database",
    yes: "yes",
    say_yes_or_no: "is neither yes nor no",
    say_format: "is not json, jwt, registry, pattern or opaque",
    missing: "{flag} is missing, and there is no terminal to ask on",
    no_url: "is not a scheme and a host alone, such as https://hook.example.com",
    not_https: "is neither https:// nor on this machine; tokens would go over the wire as they are",
    no_directory: "the directory {directory} does not exist",
    is_there: "{path} is there already; --force replaces it, keeps it as countersign.toml.old, and leaves the secrets that are there",
    wrote: "wrote {path}",
    kept: "kept {path}, which was there",
    kept_before: "kept the configuration that was there as {path}",
    head: "The configuration of countersign. `countersign config defaults` explains every key.",
    about_http: "Callbacks and nothing else. The approval center wants HTTPS: a proxy before it, or [http.tls].",
    about_admin: "Health, metrics, API and console: for the inside only.",
    about_ledger: "What is answered 200 is here. SQLite: on a local disk that survives.",
    about_locale: "What refused approvers read: zh, en or ja.",
    about_credentials: "The same values stand in the definition and in each card.",
    about_context: "How the action_context says which task is meant: docs/contexts.md.",
    definition: "1. The definition: POST https://open.feishu.cn/open-apis/approval/v4/external_approvals",
    task: "2. Into each task of an instance: POST …/approval/v4/external_instances",
    card: "3. Into each card: POST …/approval/v1/message/send. The action_context is that of the task",
    content_of: "<the content of {path}>",
    hidden: "Token and key are not printed, because stdout is no terminal; --show-secrets prints them.",
    signed_context: "<a token: see `countersign context sign`>",
    platform_locale: "en-US",
    next: "Next:",
    steps: [
        "Look for faults:",
        "Run it, behind HTTPS:",
        "See whether everything works that a decision passes:",
        "Send a callback as the approval center does:",
        "Try it without a tenant; see docs/approval-center.md:",
    ],
    sign: "Contexts are signed by your system with the secret in secrets/{endpoint}-context. By hand:\n   echo '{\"instance_id\":\"PO-77\",\"task_id\":\"PO-77-n1\",\"round\":1,\"operators\":[\"zhang3\"]}' | countersign context sign --config {path} --expires-in 72h\n",
    register: "Your system registers each context before it sends it: PUT /api/v1/contexts/KEY, see docs/contexts.md\n",
};

const ZH: Phrases = Phrases {
    ask_endpoint: "接入点的名称，即 URL 的最后一段",
    ask_public_url: "审批中心访问本服务的协议和主机名，例如 https://hook.example.com",
    ask_encrypted: "审批中心是否用 key 加密回调？yes 或 no",
    ask_context: "action_context 以哪种格式指明任务：json、jwt、registry、pattern 或 opaque",
    ask_broker: "RabbitMQ 的 URL",
    ask_ledger: "决定保存在哪里：SQLite 文件的路径，或 postgres://user@host/database",
    yes: "yes",
    say_yes_or_no: "请回答 yes 或 no",
    say_format: "只能是 json、jwt、registry、pattern 或 opaque",
    missing: "缺少 {flag}，而且没有终端可以询问",
    no_url: "应当只有协议和主机名，例如 https://hook.example.com",
    not_https: "既不是 https://，也不是本机地址；token 会以明文传输",
    no_directory: "目录 {directory} 不存在",
    is_there: "{path} 已经存在；--force 会替换它，把原来的保留为 countersign.toml.old，并保留已有的密钥",
    wrote: "已写入 {path}",
    kept: "保留已有的 {path}",
    kept_before: "原来的配置保留为 {path}",
    head: "countersign 的配置。每个配置项的说明见 `countersign config defaults`。",
    about_http: "只接收回调。审批中心要求 HTTPS：在前面放一个代理，或配置 [http.tls]。",
    about_admin: "健康检查、指标、API 和控制台：只对内部开放。",
    about_ledger: "凡回答过 200 的决定都在这里。SQLite 文件要放在不会丢失的本地磁盘上。",
    about_locale: "被拒绝的审批人看到的提示语言：zh、en 或 ja。",
    about_credentials: "审批定义和每张卡片里填写同样的值。",
    about_context: "action_context 如何指明任务：见 docs/zh-CN/contexts.md。",
    definition: "1. 审批定义：POST https://open.feishu.cn/open-apis/approval/v4/external_approvals",
    task: "2. 审批实例的每个任务：POST …/approval/v4/external_instances",
    card: "3. 每张卡片：POST …/approval/v1/message/send。action_context 与任务的相同",
    content_of: "<{path} 的内容>",
    hidden: "标准输出不是终端，所以没有打印 token 和 key；加 --show-secrets 可以打印。",
    signed_context: "<签名的 token：见 `countersign context sign`>",
    platform_locale: "zh-CN",
    next: "接下来：",
    steps: [
        "检查配置：",
        "启动服务，前面要有 HTTPS：",
        "检查一个决定经过的每个环节：",
        "像审批中心那样发送一次回调：",
        "没有租户也可以试用，见 docs/zh-CN/approval-center.md：",
    ],
    sign: "上下文由业务系统用 secrets/{endpoint}-context 里的密钥签名。手工签名：\n   echo '{\"instance_id\":\"PO-77\",\"task_id\":\"PO-77-n1\",\"round\":1,\"operators\":[\"zhang3\"]}' | countersign context sign --config {path} --expires-in 72h\n",
    register: "业务系统在发送之前登记每个上下文：PUT /api/v1/contexts/KEY，见 docs/zh-CN/contexts.md\n",
};
