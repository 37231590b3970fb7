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
    const own = token(r).startsWith('attns_') ? chosen(r) : claims(r).workspace_id;
    return String(own || r.remoteAddress);
}

function reader(r) {
    const text = token(r), own = claims(r);
    if (text.startsWith('attns_')) return text.slice(0, 22); // the id of the session
    return own.workspace_id ? own.workspace_id + '/' + own.sub : r.remoteAddress;
}

export default { reader, workspace };
