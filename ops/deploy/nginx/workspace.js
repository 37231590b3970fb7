// Reads the workspace of a request from its token. The token is not verified: it only selects an edge, which verifies it.
// A client can choose its edge in this way, so nginx.conf limits the connections of an address (limit_conn).

function cookie(r, name) {
    const found = (r.headersIn['Cookie'] || '').match(new RegExp('(?:^|; *)' + name + '=([^;]+)'));
    return found ? found[1] : '';
}

function token(r) {
    const bearer = (r.headersIn['Authorization'] || '').match(/^bearer +(\S+)$/i);
    return bearer ? bearer[1] : cookie(r, 'attn_session');
}

function claims(r) {
    try {
        return JSON.parse(Buffer.from(token(r).split('.')[1], 'base64url').toString());
    } catch (e) {
        return {};
    }
}

// A session names no workspace: the request does, or the cookie of the page (docs/signing-in.md).
function chosen(r) {
    const named = r.args.workspace || r.headersIn['X-Attn-Workspace'] || cookie(r, 'attn_workspace');
    try {
        return r.args.workspace ? named : decodeURIComponent(named);
    } catch (e) {
        return '';
    }
}

// Requests without a readable token are distributed by address; the edge answers 401.
function workspace(r) {
    const text = token(r);
    // Without a token: a WebSocket whose first message has it, and whose address names the workspace.
    const own = text.startsWith('attns_') ? chosen(r) : text ? claims(r).workspace_id : r.args.workspace;
    return String(own || r.remoteAddress);
}

function reader(r) {
    const text = token(r), own = claims(r);
    if (text.startsWith('attns_')) return text.slice(0, 22); // the id of the session
    return own.workspace_id ? own.workspace_id + '/' + own.sub : r.remoteAddress;
}

// No edge answers, for example while the only one restarts. An EventSource stops for ever after an error status, but
// reconnects after a stream that ends. The delay is random, because all readers of the edge come at the same time.
function unavailable(r) {
    if ((r.headersIn['Accept'] || '').includes('text/event-stream')) {
        r.headersOut['Content-Type'] = 'text/event-stream';
        r.headersOut['Cache-Control'] = 'no-store';
        r.return(200, `retry: ${1000 + Math.floor(4000 * Math.random())}\n\n`);
    } else {
        r.headersOut['Content-Type'] = 'application/json';
        r.return(502, '{"error":"no edge answers"}');
    }
}

// --- ranges.conf: an edge serves a range of partitions ---

// Kafka's hash of a key, as its default partitioner has it: the partition of a workspace is the hash modulo their number.
function murmur2(bytes) {
    const m = 0x5bd1e995;
    let h = 0x9747b28c ^ bytes.length, at = 0;
    for (; at + 4 <= bytes.length; at += 4) {
        let k = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24;
        k = Math.imul(k, m);
        k = Math.imul(k ^ k >>> 24, m);
        h = Math.imul(h, m) ^ k;
    }
    const left = bytes.length - at;
    if (left > 2) h ^= bytes[at + 2] << 16;
    if (left > 1) h ^= bytes[at + 1] << 8;
    if (left > 0) h = Math.imul(h ^ bytes[at], m);
    h = Math.imul(h ^ h >>> 13, m);
    return (h ^ h >>> 15) & 0x7fffffff;
}

function partition(r, text) {
    return murmur2(Buffer.from(text)) % Number(r.variables.attn_partitions);
}

// The upstream of a partition by $attn_ranges, such as "0-31=range_a, 32-63=range_b".
function upstream(r, number) {
    const ranges = r.variables.attn_ranges.split(',').map((one) => one.trim().split(/[-=]/));
    const found = ranges.find((one) => Number(one[0]) <= number && number <= Number(one[1]));
    return (found || ranges[0])[2];
}

// A request that names no workspace goes to any range. If it needs another one, the edge answers 421 with the partition.
function range(r) {
    return upstream(r, partition(r, workspace(r)));
}

function owner(r) {
    return upstream(r, Number(r.variables.attn_partition));
}

export default { owner, range, reader, unavailable, workspace };
