import java.util.Map;
import org.apache.commons.httpclient.Header;
import org.apache.commons.httpclient.HttpClient;
import org.apache.commons.httpclient.methods.PostMethod;

/** Pushes by commons-httpclient 3.1, in which the platform's own samples are written. */
public final class CommonsHttpClient {
    public static void main(String[] args) throws Exception {
        Pushes.run(() -> {
            HttpClient client = new HttpClient();
            client.getParams().setContentCharset("UTF-8");
            return (url, fields) -> push(client, url, fields);
        });
    }

    private static String push(HttpClient client, String url, Map<String, String> fields) throws Exception {
        PostMethod method = new PostMethod(url);
        if (fields != null) {
            fields.forEach(method::addParameter);
        }
        try {
            int status = client.executeMethod(method);
            method.getResponseBody();
            Header id = method.getResponseHeader("X-Push-Id");
            return Pushes.answer(status, id == null ? null : id.getValue());
        } finally {
            method.releaseConnection();
        }
    }
}
