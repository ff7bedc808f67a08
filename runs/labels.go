package runs

// labels are the report's words by language. English keys stand for themselves unless a longer text is wanted.
var labels = map[string]map[string]string{
	"en": {
		"report": "Run report", "outcome": "Outcome", "before": "Before", "after": "After", "change": "Change", "measure": "Measure",
		"loss": "Loss", "train": "Training", "eval": "Held out", "general": "General text", "smoothed": "smoothed", "updates": "Updates",
		"learning rate": "Learning rate", "gradient norm": "Gradient norm", "tokens per second": "Tokens per second",
		"samples": "Samples", "prompt": "Prompt", "want": "Wanted", "config": "Configuration", "origin": "Origin", "events": "Events",
		"base": "Base", "data": "Data", "tokens": "Trained tokens", "duration": "Duration", "engine": "Engine", "precision": "Precision",
		"workers": "Workers", "version": "Version", "system": "System", "program": "Program", "created": "Created", "seed": "Seed",
		"time": "Time", "step": "Update", "event": "Event", "message": "Message",
		"running": "running", "finished": "finished", "cancelled": "cancelled", "failed": "failed", "interrupted": "interrupted",
		"better": "better", "worse": "worse", "same": "unchanged", "points": "points", "empty": "(empty)",
		"no metrics": "No update has been logged yet.", "no outcome": "No comparison of before and after has been recorded.",
		"task score": "Task score", "held-out loss": "Held-out loss", "general loss": "General loss",
		"start": "started", "resume": "resumed", "checkpoint": "saved", "warning": "warning", "finish": "finished", "cancel": "cancelled", "error": "failed",
		"footer": "Made by tunesmith from the files of the run's folder alone.",
	},
	"zh": {
		"report": "运行报告", "outcome": "结果", "before": "之前", "after": "之后", "change": "变化", "measure": "指标",
		"loss": "损失", "train": "训练", "eval": "留出集", "general": "通用文本", "smoothed": "平滑", "updates": "更新次数",
		"learning rate": "学习率", "gradient norm": "梯度范数", "tokens per second": "每秒词元数",
		"samples": "样例", "prompt": "提示", "want": "期望", "config": "配置", "origin": "来源", "events": "事件",
		"base": "基础模型", "data": "数据", "tokens": "训练词元", "duration": "用时", "engine": "引擎", "precision": "精度",
		"workers": "线程数", "version": "版本", "system": "系统", "program": "程序", "created": "创建时间", "seed": "随机种子",
		"time": "时间", "step": "更新", "event": "事件", "message": "说明",
		"running": "运行中", "finished": "已完成", "cancelled": "已取消", "failed": "失败", "interrupted": "已中断",
		"better": "变好", "worse": "变差", "same": "不变", "points": "个百分点", "empty": "（空）",
		"no metrics": "尚无更新记录。", "no outcome": "尚未记录前后对比。",
		"task score": "任务得分", "held-out loss": "留出损失", "general loss": "通用损失",
		"start": "开始", "resume": "恢复", "checkpoint": "保存", "warning": "警告", "finish": "完成", "cancel": "取消", "error": "失败",
		"footer": "由 tunesmith 仅根据运行目录中的文件生成。",
	},
}
