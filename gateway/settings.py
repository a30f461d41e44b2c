# SPDX-License-Identifier: Apache-2.0
"""All that an operator can set, where each value came from, and what it means.

One frozen dataclass per subject; :func:`load` reads a TOML file, then ``COVERSLIP_*``
variables, then flags, later ones winning. This is the only module that reads the
environment. Whether the values may be used together is decided in
``gateway.settings_check``; ``docs/settings.md`` and ``config/default.toml`` are written
from the fields below by ``gateway.settings_docs``.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints
from urllib.parse import quote, unquote

from gateway import settings_read as read
from gateway.settings_read import PREFIX, Key
from gateway.settings_read import SettingsError as SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Read by the test suite, not settings of the program.
RESERVED_VARIABLES = ("COVERSLIP_TEST_", "COVERSLIP_REQUIRE_")
CONFIG_VARIABLE = "COVERSLIP_CONFIG"

T = TypeVar("T")


def _set(
    default: T,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    secret: bool = False,
    example: str = "",
) -> T:
    """A field with its documentation; the type checker sees the default's type."""
    metadata = {
        "meaning": meaning,
        "choices": choices,
        "minimum": minimum,
        "secret": secret,
        "example": example,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    bind: str = _set("127.0.0.1:8080", "Address and port of the web server; port 0 picks a free one.")
    server: str = _set(
        "gunicorn",
        "What speaks HTTP. `granian` (`pip install 'coverslip[granian]'`) spends less than gunicorn on "
        "requests that need a thread. It does not know `connections_per_address`, waits for ever for a "
        "client that stops within its body, and keeps idle connections for `header_timeout_s`: use it where "
        "a proxy in front guards against slow clients, and drops headers whose names hold an underscore, as "
        "nginx does.",
        choices=("gunicorn", "granian"),
    )
    public_url: str = _set(
        "",
        "How browsers and DICOMweb clients reach this server, if not by `bind`. "
        "Every URL in an answer starts with it.",
        example='"https://slides.example.org"',
    )
    behind_proxy: bool = _set(
        False,
        "A reverse proxy of `trusted_proxies` stands in front of this server. "
        'With `auth.mode = "open"` on loopback only (docs/adr/0007).',
    )
    trusted_proxies: tuple[str, ...] = _set(
        (),
        "CIDR networks of the proxies whose X-Forwarded-For and X-Forwarded-Proto count.",
        example='["10.1.0.5/32"]',
    )
    trusted_hosts: tuple[str, ...] = _set(
        (),
        "Further names that a request's Host header may carry, beside this machine's loopback names "
        "and the one of `public_url`.",
        example='["archive.lab.example"]',
    )
    cors_origins: tuple[str, ...] = _set(
        (),
        "Origins of viewers served elsewhere that may use the DICOMweb services from a browser.",
        example='["https://viewer.example.org"]',
    )
    workers: int = _set(2, "Web server processes.", minimum=1)
    threads: int = _set(32, "Requests that one process works on at once.", minimum=4)
    slow_connections: int = _set(
        256, "Stalled transfers that one process carries beside its `threads`.", minimum=0
    )
    connections: int = _set(1000, "Open connections of one process; more wait to be accepted.", minimum=16)
    connections_per_address: int = _set(
        512,
        "Open connections of one process from one address, trusted proxies excepted; "
        "further ones are closed at once.",
        minimum=1,
    )
    header_timeout_s: float = _set(
        10.0, "Seconds a client has for its request line and headers.", minimum=0.1
    )
    transfer_timeout_s: float = _set(
        60.0, "Seconds without a single byte moving after which a transfer is cut.", minimum=0.1
    )
    keepalive_s: int = _set(65, "Seconds an idle connection is kept.", minimum=1)


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application entity, as a file says it; ``archive.peer`` judges it."""

    ae_title: str = _set("", "Its AE title (1 to 16 characters).")
    networks: tuple[str, ...] = _set((), "CIDR networks it may come from.")
    host: str = _set("", "Host name or address at which we call it.")
    port: int = _set(0, "Its port there.")
    tls: bool = _set(False, "It comes by TLS only, and is called so.")
    fingerprints: tuple[str, ...] = _set((), "SHA-256 of its certificates (DER), hexadecimal.")
    certificate_names: tuple[str, ...] = _set(
        (), "Names of which its certificate has one: `DNS:`, `IP:`, `URI:`, `email:`, `subject:CN=…,O=…`."
    )
    rights: tuple[str, ...] = _set(
        ("echo", "store"), "Services it may use: echo, store, find, move, get, worklist, commit."
    )
    stations: tuple[str, ...] = _set(
        (), "AE titles whose worklist items it sees, beside those for no station; none: all items."
    )


@dataclass(frozen=True, slots=True)
class DimseSettings:
    bind: str = _set(
        "127.0.0.1:11112", "Address and port of the DICOM listener without TLS; empty: no such listener."
    )
    tls_bind: str = _set(
        "",
        "Address and port of the DICOM listener with TLS; empty: no such listener.",
        example='"0.0.0.0:2762"',
    )
    tls_certificate: str = _set(
        "",
        "Our certificate and its chain, PEM; read again when it changes. Relative: from the working "
        "directory, here and below.",
        example='"/etc/coverslip/tls/archive.pem"',
    )
    tls_key: str = _set("", "Its private key, PEM, without a password.")
    tls_ca: str = _set(
        "",
        "Certificates that peers' are verified with, PEM. Empty: peers that we call are verified with "
        "the system's.",
    )
    tls_client_certificate: str = _set(
        "require",
        "Whether who comes by TLS must show a certificate: `require`; `request`: one that is shown must be "
        "good; `none`.",
        choices=("require", "request", "none"),
    )
    tls_profile: str = _set(
        "bcp195",
        "Profile of PS3.15: `bcp195` is B.12, `bcp195-modified` what there is of B.13 "
        "(docs/conformance-dimse.md).",
        choices=("bcp195", "bcp195-modified"),
    )
    ae_title: str = _set("COVERSLIP", "Our AE title (1 to 16 characters).")
    peers: tuple[Peer, ...] = _set(
        (),
        "Who may associate, and whom we call (docs/peers.md); those of `peers_file` and of `/api/peers` "
        "come in addition. Nobody named at all: anybody may do everything, from this machine only.",
        example='[{ ae_title = "SCANNER1", networks = ["10.1.2.0/24"], rights = ["echo", "store"] }]',
    )
    peers_file: str = _set(
        "",
        "A TOML file of `[[peers]]` tables with the same fields; read again when it changes. "
        "`config/peers.toml` is an example.",
        example='"/etc/coverslip/peers.toml"',
    )
    allow_plaintext: bool = _set(
        False, "Allow DICOM without TLS beyond loopback, for scanners that do not speak it."
    )
    maximum_pdu_bytes: int = _set(131072, "Largest PDU that we receive (PS3.8 D.1).", minimum=4096)
    maximum_associations: int = _set(64, "Associations at once.", minimum=1)
    associations_per_address: int = _set(16, "Associations at once from one address.", minimum=1)
    association_timeout_s: float = _set(
        10.0,
        "Seconds a peer has to complete a PDU or its association request (ARTIM, PS3.8 9.1.5).",
        minimum=0.1,
    )
    idle_timeout_s: float = _set(300.0, "Seconds an association may be silent.", minimum=1)
    sop_classes: tuple[str, ...] = _set(
        ("standard", "private"),
        "Storage SOP classes that are taken by C-STORE: `standard` is every one of the standard, retired "
        "and newer ones too, `private` every private one; single ones by keyword or UID.",
        example='["VLWholeSlideMicroscopyImageStorage", "1.2.840.10008.5.1.4.1.1.91.1", "1.2.276.0.1.2.3"]',
    )
    availability_peers: tuple[str, ...] = _set(
        (),
        "AE titles of peers that are told of every study that came, grew or lost something (Instance "
        "Availability Notification); each needs an address.",
        example='["RIS"]',
    )
    availability_settle_s: float = _set(
        30.0, "Seconds for which a study must not change before they are told of it.", minimum=0.0
    )


@dataclass(frozen=True, slots=True)
class AuthSettings:
    mode: str = _set(
        "open",
        "`open`: everybody who reaches the server may do everything; allowed on loopback only, "
        "its proxy too.",
        choices=("open", "local", "oidc"),
    )


@dataclass(frozen=True, slots=True)
class WatchSettings:
    folders: tuple[str, ...] = _set(
        ("watch",),
        "Folders whose files are taken in; relative ones are below `data_dir`.",
        example='["/mnt/scanner1/out"]',
    )
    poll_s: float = _set(1.0, "Seconds between two looks (SMB and NFS shares tell no changes).", minimum=0.05)
    settle_s: float = _set(
        2.0, "Seconds for which size and time of a file must not change before it is taken.", minimum=0.0
    )
    delete_source: bool = _set(False, "Delete a file from its folder once it is stored safely.")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    poll_s: float = _set(0.5, "Seconds between two looks for work.", minimum=0.05)
    lease_s: float = _set(60.0, "Seconds after which another worker may take over a silent job.", minimum=1)
    attempts: int = _set(5, "How often a job is tried before it counts as failed.", minimum=1)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    keep_days: float = _set(
        7.0,
        "How long delivery to a receiver that is down or refuses is tried again; then it is given up, and "
        "`coverslip outbox retry` begins anew.",
        minimum=0.01,
    )


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    file: str = _set(
        "",
        "A TOML file of `[[rule]]` tables (docs/routing.md) that say what is sent on, and where to; read "
        "again when it changes. `config/routing.toml` is an example. Relative: from the working directory.",
        example='"/etc/coverslip/routing.toml"',
    )


@dataclass(frozen=True, slots=True)
class ConvertSettings:
    lossless: str = _set(
        "jpeg2000",
        "Form of frames that cannot be copied from the scanner's file. OpenSlide reads `jpeg2000` and "
        "`none` only; `htj2k` is the fastest.",
        choices=("jpeg2000", "htj2k", "jpeg-ls", "none"),
    )
    lossy_quality: int = _set(
        0,
        "Quality (1 to 100) of such frames if they may lose something; 0: they are kept without loss.",
        minimum=0,
    )
    processes: int = _set(
        0, "Processes that decode and encode for one conversion; 0: one for each core.", minimum=0
    )
    memory_bytes: int = _set(2 << 30, "Memory that one of them may use.", minimum=256 << 20)
    timeout_s: float = _set(120.0, "Seconds that one of its steps may take.", minimum=1)
    verify: str = _set(
        "sampled",
        "How much of a converted slide is compared with the scanner's file before it is stored.",
        choices=("sampled", "whole"),
    )


@dataclass(frozen=True, slots=True)
class CodecSettings:
    processes: int = _set(2, "Processes that decode pixels, per serving process.", minimum=1)
    memory_bytes: int = _set(2 << 30, "Memory that one of them may use.", minimum=256 << 20)
    timeout_s: float = _set(30.0, "Seconds one picture may take.", minimum=0.1)
    queue: int = _set(64, "Pictures that may wait; further requests are answered 503.", minimum=1)


@dataclass(frozen=True, slots=True)
class LimitSettings:
    upload_bytes: int = _set(64 << 30, "Largest request body (STOW-RS).", minimum=1 << 20)
    free_bytes: int = _set(
        1 << 30, "Space to leave free on the store's file system; below it nothing is taken in.", minimum=0
    )
    find_results: int = _set(1000, "Most rows that one query returns; the rest is paged.", minimum=1)
    commitment_days: float = _set(
        90.0, "How long results of storage commitment can be asked for; then they are 410.", minimum=0.01
    )


@dataclass(frozen=True, slots=True)
class SearchSettings:
    extended_keys: tuple[str, ...] = _set(
        (),
        "Further attributes that searches match on, as keywords or tags, dotted into sequences; private "
        "ones with their VR. What is stored already is read for a new one by a job; the key counts once "
        "that is done.",
        example='["SpecimenDescriptionSequence.SpecimenDetailedDescription", "00091001:LO"]',
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _set(
        "info", "Least severe level that is written.", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True)
class Settings:
    data_dir: str = _set("data", "Folder of everything that is kept. Relative: from the working directory.")
    database_url: str = _set(
        "",
        "`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`. Empty: `coverslip.db` in `data_dir`.",
        secret=True,
    )
    storage_url: str = _set("", "`file:///PATH`. Empty: `store` in `data_dir`.")
    http: HttpSettings = field(default_factory=HttpSettings)
    dimse: DimseSettings = field(default_factory=DimseSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    outbox: OutboxSettings = field(default_factory=OutboxSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    convert: ConvertSettings = field(default_factory=ConvertSettings)
    codecs: CodecSettings = field(default_factory=CodecSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    log: LogSettings = field(default_factory=LogSettings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def data(self) -> Path:
        return Path(self.data_dir).absolute()

    @property
    def run_dir(self) -> Path:
        return self.data / "run"

    @property
    def database(self) -> str:
        """The database's URL, ``sqlite:///`` + absolute path unless PostgreSQL."""
        path = self.sqlite_path
        return self.database_url if path is None else f"sqlite:///{quote(str(path))}"

    @property
    def sqlite_path(self) -> Path | None:
        """The database file (a relative one is below ``data``), None with PostgreSQL."""
        if self.database_url and not self.database_url.startswith("sqlite:///"):
            return None
        return self.data / (unquote(self.database_url.removeprefix("sqlite:///")) or "coverslip.db")

    @property
    def storage_path(self) -> Path:
        return Path(unquote(self.storage_url.removeprefix("file://")) or self.data / "store")

    @property
    def watch_folders(self) -> tuple[Path, ...]:
        """Absolute paths of ``watch.folders``."""
        return tuple(self.data / folder for folder in self.watch.folders)


def keys(of: "type[DataclassInstance]" = Settings, prefix: str = "") -> Iterator[Key]:
    """Every key, in the order of the dataclasses."""
    hints = get_type_hints(of)
    for item in fields(of):
        if item.name == "origins":
            continue
        hint = hints[item.name]
        if is_dataclass(hint):
            yield from keys(cast("type[DataclassInstance]", hint), f"{prefix}{item.name}.")
        else:
            yield Key(prefix + item.name, hint, item.default, **item.metadata)


KEYS: Mapping[str, Key] = {key.name: key for key in keys()}


def value_of(settings: Settings, name: str) -> object:
    """The value of a key such as ``http.bind``."""
    found: object = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def shipped_config(name: str = "default.toml") -> Path:
    """A file of ``config/``: at the root of a checkout, inside the package of a wheel."""
    here = Path(__file__).resolve().parent
    packaged = here / "config_data" / name
    return packaged if packaged.exists() else here.parent / "config" / name


def load(
    config: Path | None = None,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from file, variables and flags (key -> value or text), each with its origin.

    Raises SettingsError: an unreadable file, an unknown key (naming the nearest known
    one), a value of the wrong type or outside its bounds.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, object] = {}
    origins = dict.fromkeys(KEYS, "built-in default")

    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    if config is None:
        local = Path("coverslip.toml")
        config = local if local.exists() else shipped_config()
    label = "config/default.toml" if config == shipped_config() else str(config)
    for name, value in read.flatten(read.toml_file(config), label, KEYS).items():
        values[name] = read.checked(KEYS[name], value, label)
        origins[name] = label

    variables = {key.variable: key for key in KEYS.values()}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable.startswith(RESERVED_VARIABLES):
            continue
        if variable not in variables:
            raise SettingsError(f"unknown variable {variable}{read.nearest(variable, variables)}")
        key = variables[variable]
        values[key.name] = read.checked(key, read.from_text(key, text, variable), variable)
        origins[key.name] = variable

    for name, value in (flags or {}).items():
        if name not in KEYS:
            raise SettingsError(f"unknown setting {name}{read.nearest(name, KEYS)}")
        if isinstance(value, str):
            value = read.from_text(KEYS[name], value, "flag")
        values[name] = read.checked(KEYS[name], value, "flag")
        origins[name] = "flag"

    return replace(_assembled(values), origins=origins)


def _assembled(values: Mapping[str, object]) -> Settings:
    groups: dict[str, dict[str, object]] = {}
    top: dict[str, object] = {}
    for name, value in values.items():
        group, _, rest = name.rpartition(".")
        (groups.setdefault(group, {}) if group else top)[rest] = value
    settings = replace(Settings(), **cast(dict[str, Any], top))
    for group, found in groups.items():
        part = replace(getattr(settings, group), **found)
        settings = replace(settings, **cast(dict[str, Any], {group: part}))
    return settings


def child_environment(added: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``added``, for a program that we run."""
    return {**os.environ, **added}
