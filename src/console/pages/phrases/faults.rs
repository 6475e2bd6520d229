//! The faults that a service can have, and what each means: for the table on `/health`, its checks, and the overview.

use strum::{IntoStaticStr, VariantArray};

use super::Phrases;

/// A fault, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(in crate::console) enum Fault {
    Ledger,
    Overloaded,
    Draining,
    Broker,
    Blocked,
    Topology,
    Workers,
    /// Decisions wait for the broker for longer than it takes.
    Waiting,
    Parked,
    Rejected,
    Unrouted,
    Outcomes,
    Strays,
    Findings,
    Reload,
}

impl Fault {
    pub(in crate::console) const ALL: &'static [Self] = Self::VARIANTS;

    /// In addresses.
    pub(in crate::console) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A fault in words.
#[derive(Debug, Clone, Copy)]
pub(in crate::console) struct FaultWords {
    /// A few words, for a headline.
    pub(in crate::console) short: &'static str,
    pub(in crate::console) name: &'static str,
    pub(in crate::console) approver: &'static str,
    pub(in crate::console) remedy: &'static str,
}

impl Phrases {
    pub(in crate::console) fn fault(&self, fault: Fault) -> FaultWords {
        let (short, name, approver, remedy) = self.pick(chinese(fault), english(fault));
        FaultWords { short, name, approver, remedy }
    }
}

type Words = (&'static str, &'static str, &'static str, &'static str);

fn chinese(fault: Fault) -> Words {
    match fault {
        Fault::Ledger => (
            "账本无法写入",
            "账本无法写入：磁盘满、只读或不可用",
            "系统暂时无法受理",
            "腾出空间或修复磁盘；同步失败过之后需要重启服务。countersign doctor 会指明原因。",
        ),
        Fault::Overloaded => (
            "写入队列已满",
            "写入队列已满",
            "系统繁忙，请稍后重试",
            "磁盘跟不上负载：用 countersign bench disk 测量。",
        ),
        Fault::Draining => {
            ("服务正在停止", "服务正在停止", "系统正在重启，请稍后重试", "等待，或者确认另一个副本已就绪。")
        }
        Fault::Broker => (
            "RabbitMQ 未连接",
            "RabbitMQ 不可用、登录失败或无权限",
            "提交成功",
            "恢复 RabbitMQ，或者修正用户、权限、amqp.url 后重新加载。期间不会丢失任何决定。",
        ),
        Fault::Blocked => (
            "RabbitMQ 暂停发布",
            "RabbitMQ 内存或磁盘告警，暂停了发布",
            "提交成功",
            "给它腾出空间；常见原因是消费者跟不上。",
        ),
        Fault::Topology => (
            "交换机或队列有误",
            "交换机、队列或绑定缺失或不一致",
            "提交成功",
            "运行 countersign topology check，声明之后重新发布“无队列接收”的命令。",
        ),
        Fault::Workers => (
            "没有处理程序",
            "没有处理程序消费队列",
            "提交成功，但还没有执行",
            "启动处理程序。命令在队列里等待，不会丢失。",
        ),
        Fault::Waiting => (
            "决定等待发布",
            "有决定等待发布超过一分钟",
            "提交成功，但还没有执行",
            "查看决定里的具体原因；RabbitMQ 恢复后会自动发布。",
        ),
        Fault::Parked => (
            "有命令被搁置",
            "RabbitMQ 多次没有接收命令（例如队列已满），或者运维人员搁置了命令",
            "提交成功，但还没有执行",
            "解决原因，然后在“待处理”里重新发布。",
        ),
        Fault::Rejected => (
            "有命令被退回",
            "处理程序退回了命令，或者队列的策略丢弃了命令",
            "提交成功，但没有执行",
            "修复处理程序或策略，然后在“待处理”里重新发布。",
        ),
        Fault::Unrouted => (
            "有命令无队列接收",
            "没有队列绑定命令的路由键",
            "提交成功，但没有执行",
            "绑定队列，然后在“待处理”里重新发布。",
        ),
        Fault::Outcomes => (
            "有处理结果无法展示",
            "审批中心没有接受处理结果",
            "卡片停留在之前的状态",
            "决定已经处理，只是审批人看不到。解决备注所说的原因，然后在“待处理”里再次展示。",
        ),
        Fault::Strays => (
            "有无主消息",
            "死信队列里有不属于本账本的消息",
            "没有影响",
            "运行 countersign ledger strays，查看之后删除。",
        ),
        Fault::Findings => (
            "审批中心看不到决定",
            "审批中心看不到已发布的决定",
            "任务仍是待审批",
            "见“核对”：检查处理程序、实例同步和 id。",
        ),
        Fault::Reload => (
            "重新加载失败",
            "最近一次重新加载失败",
            "提交成功",
            "之前的配置继续生效。countersign config check 会列出错误。",
        ),
    }
}

fn english(fault: Fault) -> Words {
    match fault {
        Fault::Ledger => (
            "the ledger cannot be written",
            "The ledger cannot be written: disk full, read-only or gone",
            "The system cannot take decisions now",
            "Free or repair the disk; after a failed sync restart the service. countersign doctor names the cause.",
        ),
        Fault::Overloaded => (
            "the writer's queue is full",
            "The writer's queue is full",
            "The system is busy; try again",
            "The disk is too slow for the load: countersign bench disk measures it.",
        ),
        Fault::Draining => (
            "the service is being stopped",
            "The service is being stopped",
            "The system is restarting; try again",
            "Wait, or see that another replica is ready.",
        ),
        Fault::Broker => (
            "RabbitMQ is not connected",
            "RabbitMQ is away, or does not admit the user",
            "Success",
            "Bring it back, or fix user, permission or amqp.url and reload. Nothing is lost meanwhile.",
        ),
        Fault::Blocked => (
            "RabbitMQ blocks publishing",
            "RabbitMQ has a memory or disk alarm and blocks publishing",
            "Success",
            "Give it room; consumers that lag are the usual cause.",
        ),
        Fault::Topology => (
            "an exchange or queue is wrong",
            "An exchange, queue or binding is missing or different",
            "Success",
            "countersign topology check; declare it, then requeue what is unrouted.",
        ),
        Fault::Workers => (
            "no worker",
            "No worker consumes the queue",
            "Success; nothing is carried out yet",
            "Start workers. The commands wait in the queue; none is lost.",
        ),
        Fault::Waiting => (
            "decisions wait",
            "Decisions have waited for over a minute to be published",
            "Success; nothing is carried out yet",
            "See the cause of a decision; they are published when RabbitMQ takes them.",
        ),
        Fault::Parked => (
            "commands are parked",
            "RabbitMQ did not take commands too often, such as by a full queue, or an operator parked them",
            "Success; nothing is carried out yet",
            "Fix the cause, then requeue them on Parked.",
        ),
        Fault::Rejected => (
            "commands came back",
            "Workers reject commands, or a policy of the queue drops them",
            "Success; nothing is carried out",
            "Fix worker or policy, then requeue them on Parked.",
        ),
        Fault::Unrouted => (
            "commands without a queue",
            "No queue is bound for the routing key of commands",
            "Success; nothing is carried out",
            "Bind a queue, then requeue them on Parked.",
        ),
        Fault::Outcomes => (
            "outcomes not shown",
            "The approval center does not accept outcomes",
            "The card keeps its earlier state",
            "The decisions are dealt with; only the approvers do not see it. Fix what the note says, then show again on Parked.",
        ),
        Fault::Strays => (
            "strays",
            "Dead letters that are no command of this ledger",
            "Nothing",
            "countersign ledger strays; look at them, then remove them.",
        ),
        Fault::Findings => (
            "decisions not visible",
            "The approval center does not show published decisions",
            "The task is still to be decided",
            "See Findings: worker, synchronisation, ids.",
        ),
        Fault::Reload => (
            "the reload failed",
            "The last reload failed",
            "Success",
            "The earlier configuration stays in force. countersign config check names the faults.",
        ),
    }
}
