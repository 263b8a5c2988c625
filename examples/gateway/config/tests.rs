//! Configurations that are wrong, and what is said of them.
use super::*;

const TARGET: &str = "[[target]]\nname = \"a\"\norigin = \"https://a.example\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| match name {
        "KEY" => Some("sk-of-the-provider".to_owned()),
        "BROKEN" => Some("sk-of\nthe-provider".to_owned()),
        _ => None,
    };
    Config::parse(text, &env)
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_with_its_line() {
    let digest = "ab".repeat(32);
    for (text, said) in [
        (String::new(), "a gateway needs at least one [[target]]"),
        ("listen = ".into(), "line 1: "),
        (
            format!("{TARGET}colour = 1"),
            "line 4: unknown field `colour`",
        ),
        (
            format!("listen = \"here\"\n{TARGET}"),
            "line 1: \"here\" is no address such as",
        ),
        (
            format!("listen = \"0.0.0.0:80\"\n{TARGET}"),
            "line 1: without a [[key]] the gateway listens on this machine only",
        ),
        (
            format!("listen = \"127.0.0.1:80\"\nadmin_listen = \"127.0.0.1:80\"\n{TARGET}"),
            "line 2: `listen` and `admin_listen` must differ",
        ),
        (
            format!("admin_listen = \"127.0.0.1:8080\"\n{TARGET}"),
            "line 1: `listen` and `admin_listen` must differ",
        ),
        (
            format!("redis = \"redis://x\"\n{TARGET}"),
            "line 1: limits are shared on a Redis server, and there are none",
        ),
        (
            format!("redis_timeout = \"1s\"\n{TARGET}"),
            "line 1: `redis_timeout` needs `redis`, the server",
        ),
        (
            format!(
                "redis = \"redis://x\"\nredis_timeout = \"11s\"\n{TARGET}limits = [{{ requests = 1, per = \"second\" }}]"
            ),
            "line 2: a visit to the Redis server may take from 1 ms to 10 s",
        ),
        (
            format!("{TARGET}[retry]\nattempts = 0"),
            "line 5: attempts must be above zero",
        ),
        (
            format!("{TARGET}path = \"/x/{{model}}\"\nprefix = \"/v1\""),
            "line 5: `a` has a `path`, which is all of the layout",
        ),
        (
            format!("{TARGET}path = \"/x/{{model}}\""),
            "line 4: `a` has a `path`, which only chains use",
        ),
        (
            format!("{TARGET}prefix = \"/claude\"\ndialect = \"anthropic\""),
            "line 4: behind the prefix of `a` nobody could tell what /v1/messages asks for",
        ),
        (
            format!("{TARGET}prefix = \"/claude\"\ndialect = \"cohere\""),
            "line 4: behind the prefix of `a` nobody could tell what /v1/chat asks for",
        ),
        (
            format!("{TARGET}prefix = \"/api\""),
            "line 4: behind the prefix of `a` nobody could tell what /v1/embeddings asks for",
        ),
        (
            format!(
                "{TARGET}{}",
                "[[limit]]\nrequests = 1\nper = \"day\"\n".repeat(65)
            ),
            "line 196: ",
        ),
        (
            format!(
                "{TARGET}[sinks]\nledger = \"l\"\n[[limit]]\nrequests = 1\ncalendar = \"day\"\nscope = \"tag\""
            ),
            "line 6: a cap of this scope outlasts a restart, by the ledger, only with",
        ),
        (
            format!(
                "{TARGET}[sinks]\nledger = \"l\"\n{}",
                "[[limit]]\nrequests = 1\ncalendar = \"day\"\n".repeat(2)
            ),
            "line 6: several limits are named",
        ),
        (
            format!("max_body = 0\n{TARGET}"),
            "line 1: max_body must be above zero",
        ),
        (format!("max_body = -1\n{TARGET}"), "line 1: "),
        (
            format!("max_body = 1000\nmax_buffered = 999\n{TARGET}"),
            "line 2: max_buffered must be as large as max_body",
        ),
        (
            format!("drain = \"soon\"\n{TARGET}"),
            "line 1: \"soon\" is no time such as",
        ),
        (
            format!("redis = \"http://:sk-word@x\"\n{TARGET}"),
            "line 1: the address of a Redis server begins with",
        ),
        (
            format!("redis_env = \"NOPE\"\n{TARGET}"),
            "line 1: the environment variable NOPE is not set; it holds the address",
        ),
        (
            format!("redis_env = \"KEY\"\n{TARGET}"),
            "line 1: the address of a Redis server begins with",
        ),
        (
            format!("redis = \"redis://x\"\nredis_env = \"KEY\"\n{TARGET}"),
            "line 2: `redis` and `redis_env` are two words",
        ),
        (
            format!("redis_name = \"a\"\n{TARGET}"),
            "line 1: `redis_name` needs `redis`",
        ),
        (
            format!(
                "redis = \"redis://x\"\n{TARGET}[[limit]]\nrequests = 1\nper = \"day\"\nscope = \"principal\""
            ),
            "line 5: a limit of this scope is shared through Redis only with",
        ),
        (
            format!("digest_key_env = \"NOPE\"\n{TARGET}"),
            "must hold 32 hexadecimal digits",
        ),
        (
            format!("{TARGET}{TARGET}"),
            "line 5: there are two targets `a`",
        ),
        (
            "[[target]]\nname = \"a b\"\norigin = \"https://a\"".into(),
            "line 2: a target's name must be of visible",
        ),
        (
            "[[target]]\nname = \"a\"\norigin = \"a.example\"".into(),
            "line 3: the base URL of `a`",
        ),
        (
            "[[target]]\nname = \"a\"\norigin = \"https://a.example/v1\"".into(),
            "line 3: the origin of `a` is scheme and host",
        ),
        (
            "[[target]]\nname = \"a\"\norigin = \"https://u:p@a\"".into(),
            "line 3: ",
        ),
        (
            format!("{TARGET}prefix = \"v1\""),
            "line 4: the prefix of `a` must be a path",
        ),
        (
            format!("{TARGET}credential_env = \"NOPE\""),
            "line 4: the environment variable NOPE is not set",
        ),
        (format!("{TARGET}credential_env = \"BROKEN\""), "line 4: "),
        (
            format!("{TARGET}credential_header = \"api-key\""),
            "has a credential_header and no credential_env",
        ),
        (
            format!("{TARGET}credential_env = \"KEY\"\ncredential_header = \"a b\""),
            "`a b` is no name of a header",
        ),
        (
            format!("{TARGET}dialect = \"latin\""),
            "line 4: \"latin\" is no dialect",
        ),
        (
            format!("{TARGET}headers = {{ \"a b\" = \"1\" }}"),
            "line 4: `a b` of `a` is no header",
        ),
        (
            format!("{TARGET}learn = false"),
            "has no limits and must not learn them",
        ),
        (
            format!("{TARGET}limits = [{{ per = \"minute\" }}]"),
            "line 4: a limit counts one of",
        ),
        (
            format!("{TARGET}limits = [{{ requests = 1, tokens = 2, per = \"minute\" }}]"),
            "line 4: a limit counts one of",
        ),
        (
            format!("{TARGET}limits = [{{ requests = 1 }}]"),
            "line 4: a limit needs either `per`",
        ),
        (
            format!("{TARGET}limits = [{{ requests = 0, per = \"minute\" }}]"),
            "a limit must be above zero",
        ),
        (
            format!("{TARGET}limits = [{{ requests = 1, per = \"fortnight\" }}]"),
            "line 4: \"fortnight\" is no period",
        ),
        (
            format!("{TARGET}[[limit]]\nrequests = 1\nper = \"day\"\nscope = \"moon\""),
            "line 7: \"moon\" is no scope",
        ),
        (
            format!("{TARGET}[[limit]]\nrequests = 1\nper = \"day\"\nenforcement = \"iron\""),
            "line 7: \"iron\" is no enforcement",
        ),
        (
            format!("{TARGET}[[limit]]\nrequests = 1\ncalendar = \"year\""),
            "line 6: \"year\" is no calendar",
        ),
        (
            format!("{TARGET}[[limit]]\nrequests = 1\ncalendar = \"day\"\nzone = \"Moon/Sea\""),
            "there is no time zone",
        ),
        (
            format!("{TARGET}[[limit]]\nrequests = 1\nper = \"day\"\nzone = \"UTC\""),
            "only a limit with a calendar",
        ),
        (
            format!("{TARGET}[[limit]]\ndollars = \"1\"\nper = \"day\""),
            "line 4: a limit of dollars needs [prices]",
        ),
        (
            format!("{TARGET}[[limit]]\ndollars = \"one\"\nper = \"day\""),
            "line 5: \"one\" is no amount of dollars",
        ),
        (
            format!("{TARGET}[[chain]]\ncandidates = []"),
            "a chain needs at least one candidate",
        ),
        (
            format!("{TARGET}[[chain]]\ncandidates = [{{ target = \"b\", model = \"m\" }}]"),
            "line 5: there is no target `b`",
        ),
        (
            format!("{TARGET}[[chain]]\ncandidates = [{{ model = \"m\" }}, {{ model = \"m\" }}]"),
            "`m` stands in the chain twice",
        ),
        (
            format!("{TARGET}[[chain]]\ncandidates = [{{ model = \"m\", cannot = [\"fly\"] }}]"),
            "\"fly\" is no capability",
        ),
        (
            format!("{TARGET}[[key]]\nname = \"k\"\nsha256 = \"sk-my-own-key\""),
            "line 6: the sha256 of `k` must be 64 hexadecimal digits",
        ),
        (
            format!("{TARGET}[[key]]\nname = \"k\"\nsha256 = \"{digest}\"\npriority = \"now\""),
            "\"now\" is no priority",
        ),
        (
            format!(
                "{TARGET}[[key]]\nname = \"k\"\nsha256 = \"{digest}\"\n[[key]]\nname = \"k\"\nsha256 = \"{digest}\""
            ),
            "each key needs a name of its own",
        ),
        (
            format!(
                "{TARGET}[[key]]\nname = \"k\"\nsha256 = \"{digest}\"\n[[key]]\nname = \"l\"\nsha256 = \"{digest}\""
            ),
            "the same digest",
        ),
        (
            format!("{TARGET}[prices]\ntable = \"/no/such/table.json\""),
            "line 5: /no/such/table.json: ",
        ),
        (
            format!("{TARGET}[prices.models]\nm = {{ input = \"cheap\", output = \"1\" }}"),
            "line 5: m: ",
        ),
        (
            format!("{TARGET}[timeouts]\nidle = \"0s\""),
            "line 5: \"0s\" must be above zero",
        ),
    ] {
        let error = parse(&text).expect_err(&text).to_string();
        assert!(
            error.contains(said),
            "{text}\nsaid: {error}\nand not: {said}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("sk-"), "a secret is in it: {error}");
    }
}

#[test]
fn the_file_that_is_shipped_is_good_and_nothing_secret_is_shown() {
    let text = include_str!("../gateway.toml");
    let config = Config::parse(text, &|name| {
        (name == "OPENAI_API_KEY").then(|| "sk-secret".into())
    });
    let config = config.expect("the shipped file");
    assert_eq!((config.targets.len(), config.chains.len()), (1, 1));
    assert_eq!(config.admin_listen, None);
    assert!(!format!("{config:?}").contains("sk-secret"));
}

#[test]
fn what_is_commented_out_in_the_file_that_is_shipped_is_good_too() {
    let text = include_str!("../gateway.toml");
    // Lines of settings, unlike lines of prose.
    let setting = |line: &str| {
        let word = line
            .split(['=', ' ', '[', '{', '.'])
            .next()
            .unwrap_or_default();
        let named = !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit());
        line.starts_with("[[")
            || (line.starts_with('[') && line.ends_with(']'))
            || (named && line.contains(" = "))
    };
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("#   "))
        .map(
            |line| match line.strip_prefix("# ").filter(|rest| setting(rest)) {
                Some(rest) => rest.to_owned(),
                None => line.to_owned(),
            },
        );
    let text = lines.collect::<Vec<_>>().join("\n");
    // Keys are there now; and a target with a path needs the candidate that stands within the list.
    let text = text
        .replacen("\"127.0.0.1:8080\"", "\"0.0.0.0:8080\"", 1)
        .replacen("# { target = \"azure-eu\"", "{ target = \"azure-eu\"", 1);
    let config = parse_all(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(config.targets.len(), 3);
    assert_eq!(config.limits.len(), 2);
    assert_eq!(config.keys.names().collect::<Vec<_>>(), ["search"]);
    assert!(config.jsonl.is_some() && config.ledger.is_some());
}

fn parse_all(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, &|name| match name {
        "TOLLGATE_DIGEST_KEY" => Some("0f".repeat(16)),
        _ => Some("a-key-of-one-of-them".to_owned()),
    })
}

#[test]
fn beyond_this_machine_the_pages_have_an_address_of_their_own() {
    let digest = "ab".repeat(32);
    let text =
        format!("listen = \"0.0.0.0:8080\"\n{TARGET}[[key]]\nname = \"k\"\nsha256 = \"{digest}\"");
    let config = parse(&text).expect("good");
    assert!(
        config
            .admin_listen
            .is_some_and(|admin| admin.ip().is_loopback())
    );
}

#[test]
fn a_delay_of_nothing_may_be_written_in_any_unit_and_a_visit_to_redis_takes_what_is_told() {
    for delay in ["0s", "0ms", "0 min"] {
        let config = parse(&format!("drain_delay = \"{delay}\"\n{TARGET}"));
        assert_eq!(config.expect("good").drain_delay, Duration::ZERO, "{delay}");
    }
    for (told, millis) in [("", 100), ("redis_timeout = \"3s\"", 3_000)] {
        let text = format!(
            "redis = \"redis://x\"\n{told}\n{TARGET}limits = [{{ requests = 1, per = \"second\" }}]"
        );
        let redis = parse(&text).expect("good").redis.expect("a server");
        assert_eq!(redis.timeout(), Duration::from_millis(millis));
    }
}
