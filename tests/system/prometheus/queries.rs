//! What is asked: written by hand for what is easily wrong, and by a generator over the grammar.

use super::series::Random;

/// Written by hand. Instants are meant to lie between the beginning and the end of the series.
pub(super) const WRITTEN: &[&str] = &[
    // Selectors.
    "temp",
    "temp{device=\"room-1\"}",
    "temp{device!=\"room-1\"}",
    "temp{device=~\"room-.*\",floor!~\"2|3\"}",
    "{__name__=~\"temp|CO2\"}",
    "{__name__!=\"temp\",device=\"lone\"}",
    "{type=\"engine\",spare=\"\"}",
    "temp{floor=\"\"}",
    "temp{weir_io_site=\"north\"}",
    "temp{nothing=\"x\"}",
    "nothing",
    "nothing_{device=~\".*\"}",
    "temp offset 5m",
    "temp offset -5m",
    "temp offset 1h30m",
    "temp @ 1423056600",
    "temp @ 1423056600.5 offset 1m",
    "temp @ start()",
    "temp @ end()",
    "sum(temp @ end()) - sum(temp @ start())",
    "temp{device=\"lone\"}",
    "temp{device=\"lone\"} @ 1423056600",
    "temp{device=\"lone\"} @ 1423056599.999",
    "temp{device=\"lone\"} @ 1423056900",
    "temp{device=\"lone\"} @ 1423056900.001",
    "count_over_time(temp{device=\"lone\"}[1m] @ 1423056660)",
    "count_over_time(temp{device=\"lone\"}[1m] @ 1423056660.001)",
    "count_over_time(temp{device=\"lone\"}[1m] @ 1423056600)",
    // Over time.
    "avg_over_time(temp[5m])",
    "min_over_time(temp[7m])",
    "max_over_time(temp[13m] offset 2m)",
    "sum_over_time(temp[1h])",
    "sum_over_time(huge[2h])",
    "avg_over_time(huge[2h])",
    "stddev_over_time(huge[2h])",
    "count_over_time(temp[10m])",
    "last_over_time(temp[10m])",
    "present_over_time(temp[3m])",
    "quantile_over_time(0.9, temp[10m])",
    "quantile_over_time(0, temp[10m])",
    "quantile_over_time(1, temp[10m])",
    "quantile_over_time(-1, temp[10m])",
    "quantile_over_time(2, temp[10m])",
    "quantile_over_time(0.5, CO2[1h])",
    "quantile_over_time(scalar(open{device=\"room-1\"}), temp[10m])",
    "stddev_over_time(temp[10m])",
    "stdvar_over_time(load[30m])",
    "stdvar_over_time(steady[30m])",
    "absent_over_time(temp{device=\"lone\"}[5m])",
    "absent_over_time(nothing{a=\"b\",c=~\"d\"}[5m])",
    "absent_over_time(temp[5m])",
    "changes(open[1h])",
    "resets(revolutions[30m])",
    "rate(revolutions[5m])",
    "rate(revolutions[1m])",
    "rate(revolutions[20s])",
    "rate(revolutions[30m] offset 7m)",
    "rate(temp[5m])",
    "increase(revolutions[10m])",
    "increase(revolutions[3h])",
    "increase(steady[10m])",
    "delta(temp[10m])",
    "delta(temp[40m])",
    "delta(load[10m])",
    "idelta(temp[5m])",
    "irate(revolutions[5m])",
    "irate(temp[90s])",
    "deriv(temp[10m])",
    "deriv(steady[10m])",
    "deriv(revolutions[15m])",
    "predict_linear(temp[30m], 3600)",
    "predict_linear(temp[30m], -60)",
    "rate(temp{device=\"lone\"}[10m])",
    "avg_over_time(temp{device=\"room-2\"}[30m] @ 1423056600)",
    "rate(revolutions[10m] @ end())",
    "increase(revolutions[10m] @ start() offset -20m)",
    "avg_over_time({__name__=~\"temp|CO2\"}[5m])",
    "last_over_time({__name__=~\"temp|CO2\"}[5m])",
    // Aggregations.
    "sum(temp)",
    "sum by (floor) (temp)",
    "sum without (device) (temp)",
    "sum by (floor, type) (CO2)",
    "sum by () (CO2)",
    "sum by (nothing) (CO2)",
    "sum by (__name__) ({device=~\"room.*\"})",
    "avg by (type) ({__name__=~\"temp|steady|load\"})",
    "avg(huge)",
    "sum(huge) * 1e10",
    "min(temp)",
    "max by (weir_io_site) (temp)",
    "count(temp)",
    "count by (type) ({device=~\".+\"})",
    "group(temp)",
    "group by (floor) (temp)",
    "stddev(temp)",
    "stdvar by (floor) (temp)",
    "stddev(steady)",
    "quantile(0.5, temp)",
    "quantile(0.25, temp) by (type)",
    "quantile(1.5, temp)",
    "quantile(NaN, temp)",
    "topk(2, temp)",
    "topk(1, temp) by (floor)",
    "topk(100, CO2)",
    "topk(0, CO2)",
    "topk(-1, CO2)",
    "bottomk(2, temp)",
    "bottomk(3, {device=~\".+\"})",
    "topk(NaN, temp)",
    "topk(9, temp * 0 / 0)",
    "topk(scalar(open{device=\"room-1\"}) + 1, CO2)",
    "count_values(\"value\", open)",
    "count_values by (floor) (\"value\", open)",
    "count_values without (device) (\"value\", round(temp))",
    "sum(sum by (floor) (temp))",
    "sum(rate(revolutions[5m]))",
    "sum by (type) (rate({__name__=~\"revolutions|temp\"}[5m]))",
    // Arithmetic, comparison, sets.
    "1 + 2 * 3 ^ 2 % 5",
    "2 ^ 3 ^ 2",
    "-2 ^ 2",
    "-temp",
    "+temp",
    "-(-temp)",
    "1 / 0",
    "-1 / 0",
    "0 / 0",
    "5 % 0",
    "-7 % 3",
    "1 == bool 1",
    "1 > bool 2",
    "1 > 2",
    "temp + 1",
    "1 - temp",
    "temp / 0",
    "temp % 5",
    "temp ^ 2",
    "temp atan2 3",
    "temp atan2 temp",
    "temp > 20",
    "20 < temp",
    "temp > bool 20",
    "20 <= bool temp",
    "temp == 21.125",
    "temp != 21.125",
    "temp * temp",
    "temp + on (device) CO2",
    "temp + ignoring (type) CO2",
    "temp - on (device) group_left () CO2",
    "temp > on (device) CO2",
    "temp < on (device) CO2",
    "temp < bool on (device) CO2",
    "temp < CO2",
    "temp < bool CO2",
    "temp == temp",
    "temp + on (floor) CO2",
    "temp * on (type) group_left () max by (type) (CO2)",
    "temp * on (floor) group_left (type) max by (floor, type) (CO2)",
    "max by (floor, type) (CO2) * on (floor) group_right (type) temp",
    "temp * on (floor) group_right () CO2",
    "temp / ignoring (device) group_left () sum without (device) (temp)",
    "CO2 and temp",
    "CO2 and on (device) temp > 20",
    "CO2 or temp",
    "temp or CO2",
    "temp or on (device) CO2",
    "CO2 unless on (device) (temp > 20)",
    "CO2 unless temp",
    "temp and nothing",
    "temp or nothing",
    "nothing or temp",
    "temp unless nothing",
    "(temp > 20) or (temp <= 20)",
    "temp and on () vector(1)",
    "temp and on () (vector(1) > 2)",
    "vector(1) + on () group_right () temp",
    "time() - timestamp(temp)",
    // Functions.
    "abs(temp)",
    "ceil(temp)",
    "floor(temp)",
    "round(temp)",
    "round(temp, 0.1)",
    "round(temp, 5)",
    "round(-temp, 0.5)",
    "clamp(temp, 0, 22)",
    "clamp(temp, 22, 0)",
    "clamp_min(temp, 10)",
    "clamp_max(temp, 10)",
    "clamp_max(temp, NaN)",
    "clamp(temp, scalar(steady), 100)",
    "exp(temp)",
    "ln(temp)",
    "log2(temp)",
    "log10(CO2)",
    "sqrt(temp)",
    "sgn(temp)",
    "sgn(temp - 20)",
    "sin(temp)",
    "acosh(temp)",
    "tanh(load)",
    "deg(temp)",
    "rad(temp)",
    "pi()",
    "scalar(temp)",
    "scalar(steady)",
    "scalar(steady) + 1",
    "vector(time())",
    "vector(scalar(steady))",
    "time()",
    "timestamp(temp)",
    "timestamp(temp offset 10m)",
    "timestamp(temp + 1)",
    "timestamp(temp @ 1423056600)",
    "timestamp(temp @ 1423056600 offset 1m)",
    "timestamp(vector(1))",
    "absent(temp)",
    "absent(nothing)",
    "absent(nothing{a=\"b\",c=\"d\",c=\"e\",f!=\"g\"})",
    "absent((nothing{a=\"b\"}))",
    "absent(sum(nothing{a=\"b\"}))",
    "absent(temp > 1000)",
    "sort(temp)",
    "sort_desc(temp)",
    "sort(CO2 - 400)",
    "label_replace(temp, \"room\", \"$1\", \"device\", \"room-(.*)\")",
    "label_replace(temp, \"device\", \"\", \"device\", \"lone\")",
    "label_replace(temp, \"a\", \"x-${1}\", \"nothing\", \"(.*)\")",
    "label_replace(temp, \"device\", \"same\", \"device\", \".*\")",
    "label_replace(temp, \"1\", \"x\", \"device\", \".*\")",
    "label_join(temp, \"both\", \"-\", \"type\", \"floor\")",
    "label_join(temp, \"type\", \"\", \"nothing\")",
    "hour()",
    "minute(vector(1423056600))",
    "day_of_week()",
    "day_of_month()",
    "day_of_year()",
    "days_in_month()",
    "month()",
    "year(temp * 1e8)",
    // Subqueries.
    "max_over_time(rate(revolutions[5m])[30m:1m])",
    "avg_over_time(temp[30m:])",
    "avg_over_time((temp > 20)[30m:90s])",
    "sum_over_time(sum(temp)[20m:5m])",
    "rate(sum by (type) (revolutions)[30m:1m])",
    "increase(revolutions[20m:15s] offset 10m)",
    "count_over_time(vector(1)[10m:1m])",
    "count_over_time(temp[7m:2m] @ 1423056600)",
    "min_over_time(max_over_time(temp[5m])[20m:5m])",
    "max_over_time(max_over_time(rate(revolutions[3m])[10m:1m])[20m:3m])",
    "absent_over_time(nothing{a=\"b\"}[10m:1m])",
    "deriv((temp @ 1423056600)[10m:1m])",
    "last_over_time(temp[10m:1m] offset -10m)",
    // What must be refused.
    "temp +",
    "sum(",
    "temp[5m]",
    "temp[30m:7m]",
    "temp[5m] offset 2m",
    "rate(temp)",
    "abs(temp[5m])",
    "{device=~\".*\"}",
    "{}",
    "temp{device=~\"(\"}",
    "unknown(temp)",
    "sum(1)",
    "1 and 2",
    "temp and 1",
    "topk(temp, temp)",
    "exp(NaN)",
    "ln(0)",
    "\"text\"",
    "temp + \"text\"",
    "temp == bool \"a\"",
    "1 == 1",
    "temp{__name__=\"CO2\"}",
    "sum by (1) (temp)",
    "temp offset 5m offset 5m",
    "temp + on (device) group_left ()",
    "rate({device=\"room-1\"}[5m])",
    "-{device=\"room-1\"}",
    "abs({device=\"room-1\"})",
    "histogram_quantile(0.9, temp)",
    "holt_winters(temp[10m], 0.5, 0.5)",
];

/// Expressions by a seed.
pub(super) struct Generator(pub(super) Random);

impl Generator {
    pub(super) fn query(&mut self) -> String {
        match self.0.below(8) {
            0 => self.scalar(2),
            _ => self.vector(3),
        }
    }

    fn selector(&mut self) -> String {
        let metric = self.0.one(&["temp", "temp", "CO2", "revolutions", "load", "open", "steady", "nothing"]);
        let matchers = self.0.one(&[
            "",
            "",
            "",
            "{type=\"room\"}",
            "{device=~\"room-[12]\"}",
            "{floor!=\"1\"}",
            "{device!~\"lone|.*-2\"}",
            "{weir_io_site=\"north\",type!=\"\"}",
        ]);
        format!("{metric}{matchers}")
    }

    fn time(&mut self) -> &'static str {
        self.0.one(&[
            "",
            "",
            "",
            "",
            " offset 3m",
            " offset -90s",
            " @ 1423056000",
            " @ end() offset 10m",
            " @ start()",
        ])
    }

    fn window(&mut self) -> String {
        let range = self.0.one(&["45s", "2m", "5m", "11m", "1h"]);
        match self.0.below(5) {
            0 => {
                let inner = self.vector(1);
                let step = self.0.one(&["", "30s", "70s", "4m"]);
                format!("({inner})[{range}:{step}]{}", self.time())
            }
            _ => format!("{}[{range}]{}", self.selector(), self.time()),
        }
    }

    fn number(&mut self) -> &'static str {
        self.0.one(&["0", "1", "2.5", "-3", "20", "1e3", "0.1"])
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.0.below(if depth == 0 { 2 } else { 6 }) {
            0 | 1 => self.number().to_owned(),
            2 => "time()".to_owned(),
            3 => format!("scalar({})", self.vector(depth - 1)),
            4 => format!("({} {} {})", self.scalar(depth - 1), self.arithmetic(), self.scalar(depth - 1)),
            _ => format!("-{}", self.scalar(depth - 1)),
        }
    }

    /// Without `%` and `^`, which make a great difference of the last bit of an operand: they come with plain numbers.
    fn arithmetic(&mut self) -> &'static str {
        self.0.one(&["+", "-", "*", "/"])
    }

    fn comparison(&mut self) -> &'static str {
        self.0.one(&["==", "!=", ">", "<", ">=", "<=", "> bool", "<= bool", "== bool"])
    }

    fn over(&mut self) -> String {
        let window = self.window();
        let function = self.0.one(&[
            "avg_over_time",
            "min_over_time",
            "max_over_time",
            "sum_over_time",
            "count_over_time",
            "last_over_time",
            "stddev_over_time",
            "stdvar_over_time",
            "present_over_time",
            "rate",
            "increase",
            "delta",
            "idelta",
            "irate",
            "deriv",
            "changes",
            "resets",
            "quantile_over_time",
        ]);
        match function {
            "quantile_over_time" => format!("{function}({}, {window})", self.0.one(&["0.5", "0.99", "0.1"])),
            _ => format!("{function}({window})"),
        }
    }

    fn aggregate(&mut self, depth: usize) -> String {
        let of = self.vector(depth);
        let grouping = self.0.one(&[
            "",
            "",
            " by (type)",
            " by (device)",
            " without (device)",
            " by (floor, type)",
            " without (type, floor)",
        ]);
        let op = self.0.one(&[
            "sum", "avg", "min", "max", "count", "stddev", "stdvar", "group", "quantile", "topk", "bottomk",
        ]);
        match op {
            "quantile" => format!("quantile{grouping} ({}, {of})", self.0.one(&["0.5", "0.9", "0"])),
            "topk" | "bottomk" => format!("{op}{grouping} ({}, {of})", self.0.one(&["1", "2", "5"])),
            _ => format!("{op}{grouping} ({of})"),
        }
    }

    fn binary(&mut self, depth: usize) -> String {
        let left = self.vector(depth);
        match self.0.below(6) {
            0 => format!("({left} {} {})", self.arithmetic(), self.scalar(depth)),
            1 => format!("({} {} {left})", self.scalar(depth), self.arithmetic()),
            2 => format!("({left} {} {})", self.comparison(), self.scalar(depth)),
            3 => {
                let matching = self.0.one(&["", " on (device)", " ignoring (type)", " on (type)"]);
                format!("({left} {}{matching} {})", self.0.one(&["and", "or", "unless"]), self.vector(depth))
            }
            4 => {
                let matching = self.0.one(&["", " on (device)", " ignoring (floor)"]);
                let op = if self.0.below(2) == 0 { self.arithmetic() } else { self.comparison() };
                format!("({left} {op}{matching} {})", self.vector(depth))
            }
            _ => {
                let group = self.0.one(&["group_left ()", "group_left (floor)"]);
                format!(
                    "({left} {} on (type) {group} max by (type, floor) ({}))",
                    self.arithmetic(),
                    self.vector(depth)
                )
            }
        }
    }

    fn function(&mut self, depth: usize) -> String {
        let of = self.vector(depth);
        match self.0.below(14) {
            12 => format!("({of} % 7)"),
            13 => format!("({of} ^ 2)"),
            0 => format!("clamp({of}, {}, {})", self.number(), self.scalar(depth)),
            1 => format!("clamp_min({of}, {})", self.scalar(depth)),
            2 => format!("round({of}, 0.5)"),
            3 => format!("timestamp({of})"),
            4 => format!("absent({of})"),
            5 => format!("vector({})", self.scalar(depth)),
            6 => format!("label_replace({of}, \"x\", \"$1\", \"device\", \"(.*)-.*\")"),
            7 => format!("-{of}"),
            8 => format!("sort_desc({of})"),
            _ => {
                let name = self.0.one(&["abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn"]);
                format!("{name}({of})")
            }
        }
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.0.below(3) {
                0 => self.over_plain(),
                _ => format!("{}{}", self.selector(), self.time()),
            };
        }
        match self.0.below(10) {
            0 | 1 => format!("{}{}", self.selector(), self.time()),
            2..=4 => self.over(),
            5 | 6 => self.aggregate(depth - 1),
            7 | 8 => self.binary(depth - 1),
            _ => self.function(depth - 1),
        }
    }

    fn over_plain(&mut self) -> String {
        let selector = self.selector();
        format!("{}({selector}[5m])", self.0.one(&["rate", "avg_over_time", "max_over_time", "delta"]))
    }
}
