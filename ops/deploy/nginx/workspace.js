// Names the workspace of a request, read from its token. Not verified: it only picks an edge, and the edge verifies. A caller
// can choose the edge that way, so nginx.conf limits the connections of an address (limit_conn).

function claims(r) {
    const header = r.headersIn['Authorization'] || '';
    const bearer = header.match(/^bearer +(\S+)$/i);
    const cookie = (r.headersIn['Cookie'] || '').match(/(?:^|; *)attn_session=([^;]+)/);
    const token = bearer ? bearer[1] : cookie ? cookie[1] : '';
    try {
        return JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
    } catch (e) {
        return {};
    }
}

// Callers without a readable token stay on one edge by address; it answers 401.
function workspace(r) {
    return String(claims(r).workspace_id || r.remoteAddress);
}

function reader(r) {
    const found = claims(r);
    return found.workspace_id ? found.workspace_id + '/' + found.sub : r.remoteAddress;
}

export default { reader, workspace };
